// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What cpu::attention must make of queries of 16 bits.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/reference.hpp>

#include "attention_cases.hpp"
#include "half_call.hpp"
#include "kernel_checks.hpp"
#include "print.hpp"

namespace support {

/// By how many times the error of cpu::attention exceeds its bound.
template <class T, class Problem>
double half_excess(Problem& problem) {
  constexpr strata::reference_attention reference;
  constexpr strata::cpu::attention attention;
  auto const view = problem.view();
  half_call<T> naive(problem), got(problem), shared(problem);
  attention_call<double> exact(problem);
  REQUIRE(naive.forward(reference, view).ok());
  REQUIRE(exact.forward(reference, view).ok());
  REQUIRE(got.forward(attention, view).ok());
  REQUIRE(shared.forward(attention, view, 7).ok());
  CHECK(same_bits(shared.out(), got.out()));
  CHECK(same_bits(shared.lse(), got.lse()));
  tensor_distance const mine(got.out(), exact.out), yardstick(naive.out(), exact.out);
  auto const bound = 2 * yardstick.error + half_unit<T>(yardstick.magnitude);
  REQUIRE(std::isfinite(bound));
  return std::max(mine.error == 0 ? 0 : mine.error / bound,
                  excess(got.lse(), naive.lse(), exact.lse));
}

/// A case that exceeds the bound of its lse a little is drawn again, as in check_bound.
template <class T, class KCodec, class VCodec = KCodec>
void check_half(attention_case const& c) {
  CAPTURE(c.name);
  double least = INFINITY;
  for (std::uint64_t seed = 1; seed <= 4 && least > 1; ++seed) {
    attention_problem<KCodec, VCodec> problem(c, seed);
    round_queries<T>(problem);
    auto const worst = half_excess<T>(problem);
    REQUIRE(worst <= 4);
    least = std::min(least, worst);
  }
  CHECK(least <= 1);
}

}  // namespace support
