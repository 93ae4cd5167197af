// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernels that are held to the laws together. A new one is one line here.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/cpu/blocked.hpp>

#include "attention_cases.hpp"
#include "kernel_checks.hpp"

namespace support {

/// Calls body(kernel) for every kernel for queries of float or double on the CPU.
template <class Body>
void for_each_kernel(Body&& body) {
  auto const with = [&](std::string const& name, auto const& kernel) {
    CAPTURE(name);
    body(kernel);
  };
  with("attention", strata::cpu::attention{});
  with("blocked", strata::cpu::blocked_attention{});
}

/// Whether a row has the same bits in a full pass, in chunks and alone, and beside any other row of
/// its sequence: more than law 5 asks for.
template <class Kernel>
inline constexpr bool same_bits_in_chunks = std::is_same_v<Kernel, strata::cpu::blocked_attention>;

/// Every kernel on a case, which `change` may make a special one of: within the bound, whose
/// yardstick is a naive sum that may by luck round to nearly nothing. A kernel that is worse stays
/// so on other numbers; so a case that exceeds the bound a little is drawn again.
template <class Problem, class Change>
void check_bound(attention_case const& c, Change&& change) {
  CAPTURE(c.name);
  for_each_kernel([&](auto const& kernel) {
    double least = INFINITY;
    for (std::uint64_t seed = 1; seed <= 4 && least > 1; ++seed) {
      CAPTURE(seed);
      Problem problem(c, seed);
      change(problem);
      reference_results const expected(problem);
      auto const worst = worst_excess(kernel, problem, expected, problem.view());
      REQUIRE(worst <= 4);
      least = std::min(least, worst);
    }
    CHECK(least <= 1);
  });
}
template <class Problem>
void check_bound(attention_case const& c) {
  check_bound<Problem>(c, [](Problem&) {});
}

}  // namespace support
