// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// libFuzzer's entry to a target; at the end it is printed how many inputs came how far.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>

namespace fuzz {

template <int Count>
struct reach_counts {
  long count[Count] = {};
  reach_counts() = default;
  reach_counts(reach_counts const&) = delete;
  reach_counts& operator=(reach_counts const&) = delete;
  ~reach_counts() {
    std::fprintf(stderr, "reached:");
    for (auto const n : count) std::fprintf(stderr, " %ld", n);
    std::fprintf(stderr, "\n");
  }
};

}  // namespace fuzz

#define STRATA_FUZZ_ENTRY(target)                                                     \
  extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) { \
    static fuzz::reach_counts<target::num_reaches> counts;                            \
    ++counts.count[target::one_input(std::as_bytes(std::span(data, size)))];          \
    return 0;                                                                         \
  }
