// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the attention kernel of a device must pass, wherever its launches run.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cuda/detail/tile_reader.hpp>

#include "attention_cases.hpp"
#include "attention_grid.hpp"
#include "half_call.hpp"
#include "print.hpp"
#include "sanitized.hpp"

namespace support {

/// Half a unit in the last place of 1 of what weights are rounded to before they meet values.
template <class Codec>
double weight_unit() {
  using weight = strata::cuda::detail::weight_element_t<Codec>;
  return std::is_same_v<weight, strata::float16> ? 0x1p-11 : 0x1p-8;
}

/// A call with bounds that only just hold: what a host knows of a batch on a device. The kernel
/// comes by reference: of a parameter that is returned, g++ 12 (-fipa-modref) forgets that its
/// pointers live on, and what they point to is then read as it was before the call.
template <class Kernel, class Problem>
Kernel bounded(Kernel const& kernel, Problem const& problem) {
  auto const& rows = problem.shape().rows;
  auto out = kernel;
  out.bounds.rows = problem.offsets().back();
  out.bounds.rows_per_seq = std::max(1, *std::max_element(rows.begin(), rows.end()));
  return out;
}

/// By how many times the error of a forward call exceeds its bound. An output: what weights and the
/// output are rounded by, and what sums of floats may add. A lse, which a lost key would change: 4
/// times what a naive float computation is off by, because exp2 is off by 2^-22; and tanh by as
/// much, so scores by 2^-21 of the softcap.
template <class Call, class Kernel, class Problem>
double device_excess(Kernel const& kernel, Problem& problem, double weight_rounding,
                     double (*out_rounding)(double)) {
  constexpr strata::reference_attention reference;
  auto const view = problem.view();
  Call got(problem), naive(problem);
  attention_call<double> exact(problem);
  REQUIRE(naive.forward(reference, view).ok());
  REQUIRE(exact.forward(reference, view).ok());
  auto const done = got.forward(bounded(kernel, problem), view);
  CAPTURE(done);
  REQUIRE(done.ok());
  double largest = 0;  // of all values
  for_each_token(view, [&](std::int32_t s, std::int32_t h, std::int32_t t) {
    std::vector<double> value(as_size(view.v_dim));
    view.load_v(s, h, t, value.data());
    for (auto const x : value) largest = std::max(largest, std::abs(x));
  });
  tensor_distance const out(out_of(got), exact.out), out_naive(out_of(naive), exact.out);
  tensor_distance const lse(lse_of(got), exact.lse), lse_naive(lse_of(naive), exact.lse);
  auto const capped = 0x1p-21 * problem.shape().rule.softcap;
  auto const out_bound = 2 * out_naive.error + 2 * capped * largest + weight_rounding * largest +
                         out_rounding(out.magnitude) + 0x1p-22 * largest;
  auto const lse_bound = 4 * lse_naive.error + 0x1p-22 * (1 + lse.magnitude) + capped;
  REQUIRE(std::isfinite(out_bound));
  return std::max(out.error == 0 ? 0 : out.error / out_bound,
                  lse.error == 0 ? 0 : lse.error / lse_bound);
}

template <class T>
std::vector<float> out_of(half_call<T> const& call) {
  return call.out();
}
template <class T>
std::vector<float> const& lse_of(half_call<T> const& call) {
  return call.lse();
}
inline std::vector<float> const& out_of(attention_call<float> const& call) { return call.out; }
inline std::vector<float> const& lse_of(attention_call<float> const& call) { return call.lse; }

/// One problem, with queries of T.
template <class T, class Kernel, class Problem>
void check_forward(Kernel const& kernel, Problem& problem, double weight_rounding) {
  CAPTURE(problem.shape().name);
  if constexpr (std::is_same_v<T, float>) {
    auto const none = [](double) { return 0.0; };
    CHECK(device_excess<attention_call<float>>(kernel, problem, weight_rounding, none) <= 1);
  } else {
    round_queries<T>(problem);
    CHECK(device_excess<half_call<T>>(kernel, problem, weight_rounding, &half_unit<T>) <= 1);
  }
}

/// Calls in which any two features meet, on heads of `dim` (0: of every size). `vary(kernel, i)`
/// changes what must not matter.
template <class T, class KCodec, class VCodec = KCodec, class Kernel, class Vary>
void check_forward_grid(Kernel const& kernel, std::int32_t dim, std::uint64_t seed, Vary&& vary) {
  constexpr std::int64_t most_work = 300'000;
  std::int32_t i = 0;
  for (auto const& levels : attention_design(seed, most_work)) {
    auto c = grid::case_of(levels);
    if (dim > 0) c.k_dim = c.v_dim = dim;
    auto varied = kernel;
    vary(varied, i++);
    if (i % case_step() != 0) continue;
    attention_problem<KCodec, VCodec> problem(c, seed);
    check_forward<T>(varied, problem, dim > 0 ? weight_unit<VCodec>() : 0);
  }
}

}  // namespace support
