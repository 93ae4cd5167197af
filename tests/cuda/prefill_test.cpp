// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Prefill by matrix products, run thread by thread on the host: against the reference in double, on
// the same 16-bit numbers.
//
// Bound of an output, in terms of the greatest magnitude m of V: a weight is rounded to 16 bits,
// which moves an average of values by u m, and the output is rounded, by u m again. Scores are sums
// of floats, off by some 2^-22 of the greatest score s, and so are weights: 2^-21 s m at most.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>

#include "support/attention_grid.hpp"
#include "support/device_checks.hpp"
#include "support/sanitized.hpp"
#include "support/simt_attention.hpp"
#include "support/simt_kernels.hpp"

namespace {

using strata::bf16_codec;
using strata::bfloat16;
using strata::f16_codec;
using strata::float16;
using strata::int8_codec;
using support::attention_call;
using support::attention_case;
using support::attention_problem;
using support::half_call;
using support::roundoff;
using support::simt_launch;
using support::simt_prefill;
using support::tensor_distance;

/// Scores are at most query_scale * sqrt(k_dim) here: queries and keys are uniform.
double score_error(attention_case const& c) { return 0x1p-21 * c.query_scale * c.k_dim; }

/// By how many times the error of a call exceeds its bound.
template <std::int32_t Dim, class T, class KCodec, class VCodec>
double prefill_excess(attention_problem<KCodec, VCodec>& problem, simt_launch const& launch) {
  using weight = strata::cuda::detail::weight_element_t<VCodec>;
  support::round_queries<T>(problem);
  auto const view = problem.view();
  attention_call<double> exact(problem);
  half_call<T> got(problem);
  REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
  REQUIRE(got.forward(simt_prefill<Dim>{launch}, view).ok());
  auto const scores = score_error(problem.shape());
  tensor_distance const out(got.out(), exact.out), lse(got.lse(), exact.lse);
  return std::max(out.error / (roundoff<weight> + roundoff<T> + scores), lse.error / scores);
}

template <std::int32_t Dim, class T, class KCodec, class VCodec = KCodec>
void check_prefill_grid(std::uint64_t seed) {
  double worst = 0;
  std::int32_t number = 0;
  for (auto const& levels : support::attention_design(seed, 200000)) {
    auto const i = number++;
    if (i % support::case_step() != 0) continue;
    auto c = support::grid::case_of(levels);
    c.k_dim = c.v_dim = Dim;
    c.name = support::grid::spell(c);
    CAPTURE(c.name);
    attention_problem<KCodec, VCodec> problem(c);
    auto const e = prefill_excess<Dim, T>(problem, simt_launch::of(i));
    CHECK(e <= 1);
    worst = std::max(worst, e);
  }
  MESSAGE(number << " cases, at most " << worst << " of the bound");
}

/// Many rows, of which tiles see all keys, some, or none.
std::vector<attention_case> long_prefill_cases() {
  std::vector<attention_case> cases = {
      {"full", {300}, {300}, 2, 1, 64, 64},
      {"chunks", {400, 33, 129, 0, 200}, {130, 33, 129, 5, 1}, 4, 2, 64, 64},
  };
  auto windowed = cases.back();
  windowed.name = "window";
  windowed.rule.window = 70;
  cases.push_back(windowed);
  auto any_order = cases.back();
  any_order.name = "any order";
  any_order.any_order = any_order.gaps = any_order.sinks = true;
  any_order.layout = {16, 5};
  cases.push_back(any_order);
  return cases;
}

}  // namespace

TEST_CASE("prefill: bfloat16, head_dim 64") { check_prefill_grid<64, bfloat16, bf16_codec>(1); }
TEST_CASE("prefill: float16, head_dim 128") { check_prefill_grid<128, float16, f16_codec>(2); }
TEST_CASE("prefill: int8") { check_prefill_grid<64, bfloat16, int8_codec>(3); }
TEST_CASE("prefill: int8 keys, float16 values") {
  check_prefill_grid<64, float16, int8_codec, f16_codec>(4);
}

TEST_CASE("prefill: many rows") {
  std::int32_t number = 0;
  for (auto const& c : support::sampled(long_prefill_cases())) {
    CAPTURE(c.name);
    attention_problem<bf16_codec> problem(c);
    auto const launch = simt_launch::of(number++);
    CHECK(prefill_excess<64, bfloat16>(problem, {2, launch.order, launch.copies}) <= 1);
  }
}

TEST_CASE("prefill: the same bits whatever the launch") {
  for (auto const& c : support::sampled(long_prefill_cases(), 1)) {
    CAPTURE(c.name);
    attention_problem<bf16_codec> problem(c);
    support::round_queries<bfloat16>(problem);
    half_call<bfloat16> first(problem);
    REQUIRE(first.forward(simt_prefill<64>{{1}}, problem.view()).ok());
    for (auto const& launch : support::sampled<simt_launch>(
             {{4, simt::order::descending, simt::arrival::at_once}, {100, simt::order::shuffled}},
             1)) {
      half_call<bfloat16> again(problem);
      REQUIRE(again.forward(simt_prefill<64>{launch}, problem.view()).ok());
      CHECK(support::same_bits(again.out(), first.out()));
      CHECK(support::same_bits(again.lse(), first.lse()));
    }
  }
}

TEST_CASE("prefill: by multiply-adds where heads have no matrix kernel") {
  std::int32_t number = 0;
  for (auto c : long_prefill_cases()) {
    if (number++ % support::case_step() != 0) continue;
    c.k_dim = 40, c.v_dim = 100;
    CAPTURE(c.name);
    attention_problem<strata::f32_codec> problem(c);
    auto const view = problem.view();
    attention_call<double> exact(problem);
    attention_call<float> got(problem);
    auto const kernel =
        support::bounded(support::simt_attention<>(0, 1, simt::order::shuffled), problem);
    REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
    REQUIRE(got.forward(kernel, view).ok());
    CHECK(tensor_distance(got.out, exact.out).error <= roundoff<float> + score_error(c));
    CHECK(tensor_distance(got.lse, exact.lse).error <= score_error(c));
  }
}

TEST_CASE("prefill: a launch leaves sequences of other sizes alone") {
  attention_problem<bf16_codec> problem({"", {90, 40, 70}, {3, 40, 65}, 4, 2, 64, 64});
  support::round_queries<bfloat16>(problem);
  auto const view = problem.view();
  half_call<bfloat16> few(problem), many(problem), all(problem);
  REQUIRE(few.forward(simt_prefill<64>{{2}, 1, 79}, view).ok());
  REQUIRE(many.forward(simt_prefill<64>{{2}, 80}, view).ok());
  REQUIRE(all.forward(simt_prefill<64>{{2}}, view).ok());
  auto const rows = [](half_call<bfloat16> const& call, std::ptrdiff_t begin, std::ptrdiff_t end) {
    auto const lse = call.lse();
    return std::vector<float>(lse.begin() + 4 * begin, lse.begin() + 4 * end);
  };
  CHECK(support::same_bits(rows(few, 0, 3), rows(all, 0, 3)));
  CHECK(support::same_bits(rows(many, 3, 108), rows(all, 3, 108)));
  for (auto const x : rows(few, 3, 108)) CHECK(std::isnan(x));
  for (auto const x : rows(many, 0, 3)) CHECK(std::isnan(x));
}

TEST_CASE_TEMPLATE("prefill: what is not finite counts where it is seen, and nowhere else", T,
                   bfloat16, float16) {
  using codec = strata::plain_codec<T>;
  attention_case c{"", {140, 70}, {140, 9}, 4, 2, 64, 64};
  c.sinks = true;
  attention_problem<codec> problem(c);
  constexpr auto infinity = std::numeric_limits<float>::infinity();
  std::vector<float> infinite(64, 0.5f);
  infinite[3] = infinity, infinite[60] = -infinity;
  problem.write_v(0, 0, 77, infinite);
  problem.write_k(0, 1, 100, infinite);
  problem.write_v(1, 1, 66, std::vector<float>(64, std::nanf("")));
  support::round_queries<T>(problem);
  auto const view = problem.view();
  attention_call<double> exact(problem);
  half_call<T> got(problem);
  REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
  REQUIRE(got.forward(simt_prefill<64>{{2}}, view).ok());
  auto const bound = 2 * roundoff<T> + score_error(c);
  CHECK(tensor_distance(got.out(), exact.out).error <= bound);
  CHECK(tensor_distance(got.lse(), exact.lse).error <= bound);
}
