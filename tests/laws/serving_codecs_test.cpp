// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 5 for caches that round: what is stored is rounded once, so the passes still agree bit for
// bit, and with the dense computation over K and V that went through the same codecs.
#include <doctest/doctest.h>

#include <tuple>
#include <vector>

#include <strata/cache/int4_codec.hpp>
#include <strata/cache/rotated_codec.hpp>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

namespace {

using bf16_f16 = strata::paged_storage<strata::bf16_codec, strata::f16_codec>;
using f16_bf16 = strata::contiguous_storage<strata::f16_codec, strata::bf16_codec>;
using f64_f16 = strata::paged_storage<strata::f64_codec, strata::f16_codec>;
using borrowed_f16 = strata::borrowed_storage<strata::f16_codec>;
using int8_q8_0 = strata::contiguous_storage<strata::int8_codec, strata::q8_0_codec>;
using q8_0_int8 = strata::paged_storage<strata::q8_0_codec, strata::int8_codec>;
using borrowed_int8 = strata::borrowed_storage<strata::int8_codec>;
using rotated_int4 =
    strata::paged_storage<strata::rotated_codec<strata::int4_codec>, strata::int4_codec>;

using rounding_toys =
    std::tuple<support::toy_stack<f16_bf16>, support::toy_stack<bf16_f16>,
               support::toy_stack<f64_f16>, support::toy_stack<borrowed_f16>,
               support::toy_stack<int8_q8_0>, support::toy_stack<q8_0_int8>,
               support::toy_stack<borrowed_int8>, support::toy_stack<rotated_int4>,
               support::toy_stack<int8_q8_0, strata::cpu::blocked_attention>,
               support::toy_stack<q8_0_int8, strata::cpu::blocked_attention>,
               support::toy_stack<f16_bf16, strata::cpu::blocked_attention>,
               support::toy_stack<bf16_f16, strata::cpu::blocked_attention>,
               support::toy_stack<borrowed_f16, strata::cpu::blocked_attention>>;

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("passes over a cache that rounds agree bit for bit", Toy,
                          serving_codecs) {
  auto const tokens = support::toy_tokens(9, 8);
  support::toy_shape shape;
  shape.softcap = 2;
  Toy toy(shape, {2, true});
  for (auto const& p : support::plans_of_six(shape.classes())) {
    CAPTURE(p.name);
    auto const whole = toy.alone(p.plan, tokens, {tokens.size()});
    for (std::vector<std::size_t> const& chunks : {std::vector<std::size_t>{1}, {4}, {2, 5, 1}})
      CHECK(support::same_bits(toy.alone(p.plan, tokens, chunks), whole));
    auto const dense = toy.dense(p.sources, tokens);
    // 3e-6 as measured; but where two computations of x differ in the last bit, a codec may round K
    // to either neighbour, which are 2^-8 apart in bf16, and 1/127 of the greatest in int8.
    CHECK(support::worst_error(whole, dense) < 0.01);
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_codecs, rounding_toys);

TEST_CASE("a codec that keeps every bit of its input changes nothing") {
  auto const tokens = support::toy_tokens(9, 9);
  support::toy_shape const shape;
  using f32 = strata::contiguous_storage<strata::f32_codec>;
  support::toy_stack<f32> floats(shape);
  // K of float in a cache of double: nothing to round.
  support::toy_model<float> const model(shape);
  using f64 = strata::paged_storage<strata::f64_codec>;
  strata::stack<f64, strata::reference_attention> stack(
      support::make_storage<f64>(shape.classes()));
  support::toy_server<float, decltype(stack)> server(model, stack);
  for (auto const& p : support::plans_of_six(shape.classes())) {
    auto const id = *stack.open(p.plan);
    CHECK(support::same_bits(serve_in_chunks(server, id, tokens, {4, 1}),
                             floats.alone(p.plan, tokens, {9})));
    CHECK(stack.close(id).ok());
  }
}
