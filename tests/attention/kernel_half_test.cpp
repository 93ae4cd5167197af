// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Queries and outputs of 16 bits: the reference against float, and cpu::attention against the
// reference. Scores and sums are floats all the same, so an output is off by what a sum of floats
// is, and by half a unit in the last place of its type.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/reference.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/int8_codec.hpp>

#include "support/attention_cases.hpp"
#include "support/half_checks.hpp"
#include "support/sanitized.hpp"

namespace {

using strata::bfloat16;
using strata::float16;
using support::attention_call;
using support::attention_case;
using support::attention_problem;
using support::check_half;
using support::half_call;
using support::half_unit;
using support::round_queries;
using support::tensor_distance;

using bf16_view = strata::kv_view<strata::bf16_codec>;
static_assert(strata::attention_kernel<strata::cpu::attention, bfloat16, bf16_view>);
static_assert(strata::attention_kernel<strata::cpu::attention, float16, bf16_view>);
static_assert(strata::attention_kernel<strata::reference_attention, float16, bf16_view>);
static_assert(!strata::differentiable_kernel<strata::reference_attention, float16, bf16_view>);
static_assert(!strata::differentiable_kernel<strata::cpu::attention, float16, bf16_view>);

/// Streams and tiles, alone and together.
std::vector<attention_case> half_cases() {
  auto list = support::attention_cases();
  list.push_back({"decode", {1100, 3, 64, 0, 513}, {1, 1, 1, 1, 1}, 8, 2, 64, 64});
  list.push_back({"all kinds", {1100, 300, 0, 1030}, {1, 30, 1, 4}, 8, 2, 100, 72});
  return list;
}

}  // namespace

TEST_CASE_TEMPLATE("reference: 16 bits are those of float, rounded", T, float16, bfloat16) {
  for (auto const& c : support::sampled(support::attention_cases())) {
    CAPTURE(c.name);
    attention_problem<strata::f32_codec> problem(c);
    round_queries<T>(problem);
    half_call<T> half(problem);
    attention_call<float> whole(problem);
    REQUIRE(half.forward(strata::reference_attention{}, problem.view()).ok());
    REQUIRE(whole.forward(strata::reference_attention{}, problem.view()).ok());
    // The two may be fused otherwise: they differ as float and double do.
    tensor_distance const out(half.out(), whole.out);
    CHECK(out.error <= half_unit<T>(out.magnitude) + 2e-6 * c.query_scale);
    tensor_distance const lse(half.lse(), whole.lse);
    CHECK(lse.error <= 0x1p-20 * lse.magnitude);
  }
}

TEST_CASE_TEMPLATE("attention: queries of 16 bits", T, float16, bfloat16) {
  for (auto const& c : support::sampled(half_cases(), 1)) {
    check_half<T, strata::bf16_codec>(c);
    check_half<T, strata::f16_codec, strata::int8_codec>(c);
  }
}

TEST_CASE_TEMPLATE("attention: an output beyond what 16 bits hold is infinite", T, float16,
                   bfloat16) {
  attention_case const c{"", {70, 70}, {1, 40}, 2, 1, 8, 8};
  attention_problem<strata::f32_codec> problem(c);
  std::vector<float> const far(8, std::numeric_limits<float>::max());
  for (std::int32_t s = 0; s < 2; ++s)
    for (std::int32_t t = 0; t < 70; ++t) problem.write_v(s, 0, t, far);
  half_call<T> call(problem);
  REQUIRE(call.forward(strata::cpu::attention{}, problem.view()).ok());
  for (auto const x : call.out()) CHECK(x == INFINITY);
}
