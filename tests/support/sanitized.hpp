// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whether a sanitizer watches, under which all that there is takes too long.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define STRATA_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STRATA_TEST_SANITIZED 1
#endif
#endif
#ifndef STRATA_TEST_SANITIZED
#define STRATA_TEST_SANITIZED 0
#endif

namespace support {

/// Every how manyth of many like cases is run: all, but every 32nd under AddressSanitizer, where
/// fibers are slow (11 minutes for all), and fewer where the environment says so, as under a
/// device's sanitizers.
inline int case_step() {
  if (STRATA_TEST_SANITIZED) return 32;
  auto const* const step = std::getenv("STRATA_TEST_EVERY");
  return step != nullptr && std::atoi(step) > 0 ? std::atoi(step) : 1;
}

/// The same for calls of a kernel that is itself not optimised where a sanitizer watches.
inline std::size_t call_step() { return case_step() < 8 ? 1 : 8; }

/// And for the cases of one test: all of them, or the `first` and every 8th after it.
template <class T>
std::vector<T> sampled(std::vector<T> const& cases, std::size_t first = 0) {
  if (call_step() == 1) return cases;
  std::vector<T> some;
  for (auto i = first; i < cases.size(); i += call_step()) some.push_back(cases[i]);
  return some;
}

}  // namespace support
