// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 5: a full pass, chunked prefill and token by token are the same bits, for every plan and
// storage, however the work is split; and they are the dense computation without any cache.
#include <doctest/doctest.h>

#include <tuple>
#include <vector>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

namespace {

using exact_storages = std::tuple<
    strata::contiguous_storage<strata::f64_codec>, strata::paged_storage<strata::f64_codec>,
    strata::contiguous_storage<strata::f32_codec>, strata::paged_storage<strata::f32_codec>>;

std::vector<std::vector<std::size_t>> const all_chunks{{1}, {4}, {5, 1}, {2, 7, 3}, {10, 1}};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("full pass == chunked prefill == token by token", S, serving_passes) {
  auto const tokens = support::toy_tokens(11, 3);
  support::toy_shape const shape;
  support::toy_stack<S> toy(shape);
  for (auto const& p : support::plans_of_six(shape.classes())) {
    CAPTURE(p.name);
    auto const whole = toy.alone(p.plan, tokens, {tokens.size()});
    for (auto const& chunks : all_chunks)
      CHECK(support::same_bits(toy.alone(p.plan, tokens, chunks), whole));
    auto const dense = support::toy_oracle<typename S::k_codec, typename S::v_codec>(
        toy.model, p.sources, tokens, support::first_positions(tokens.size()));
    CHECK(support::worst_error(whole, dense) < support::toy_bound<typename decltype(toy)::number>);
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_passes, exact_storages);

TEST_CASE_TEMPLATE_DEFINE("shares do not change bits", S, serving_shares) {
  auto const tokens = support::toy_tokens(9, 4);
  support::toy_shape shape;
  shape.softcap = 1.5;
  shape.sinks = true;
  support::toy_stack<S> one(shape);
  for (auto const& exec : support::all_executors()) {
    CAPTURE(exec.shares);
    support::toy_stack<S> toy(shape, exec);
    for (auto const& p : support::plans_of_six(shape.classes())) {
      CAPTURE(p.name);
      auto const whole = one.alone(p.plan, tokens, {tokens.size()});
      CHECK(support::same_bits(toy.alone(p.plan, tokens, {4, 1}), whole));
      auto const dense = support::toy_oracle<typename S::k_codec, typename S::v_codec>(
          toy.model, p.sources, tokens, support::first_positions(tokens.size()));
      CHECK(support::worst_error(whole, dense) <
            support::toy_bound<typename decltype(toy)::number>);
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_shares, exact_storages);

// What a row's neighbours want changes which rows are computed above the tail, and nothing else.
TEST_CASE_TEMPLATE_DEFINE("logits that nobody wants cost nobody a bit", S, serving_logits) {
  auto const tokens = support::toy_tokens(10, 5);
  support::toy_shape const shape;
  support::toy_stack<S> toy(shape);
  auto const width = static_cast<std::ptrdiff_t>(shape.width);
  for (auto const& p : support::plans_of_six(shape.classes())) {
    CAPTURE(p.name);
    auto const all = toy.alone(p.plan, tokens, {tokens.size()});
    auto const id = *toy.stack.open(p.plan);
    auto const part = [&](std::ptrdiff_t from, std::ptrdiff_t to) {
      return std::vector(tokens.begin() + from, tokens.begin() + to);
    };
    auto const expected = [&](std::ptrdiff_t from, std::ptrdiff_t to) {
      return std::vector(all.begin() + from * width, all.begin() + to * width);
    };
    CHECK(toy.server.serve({{id, part(0, 4), strata::logits::none}}).logits.empty());
    auto const last = toy.server.serve({{id, part(4, 7), strata::logits::last}});
    CHECK(last.rows == std::vector{2});
    CHECK(support::same_bits(last.logits, expected(6, 7)));
    auto const rest = toy.server.serve({{id, part(7, 10), strata::logits::all}});
    CHECK(support::same_bits(rest.logits, expected(7, 10)));
    CHECK(toy.stack.close(id).ok());
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_logits, exact_storages);

TEST_CASE("both storages give the same bits") {
  auto const tokens = support::toy_tokens(12, 6);
  support::toy_shape const shape;
  support::toy_stack<strata::contiguous_storage<strata::f64_codec>> plain(shape);
  support::toy_stack<strata::paged_storage<strata::f64_codec>> paged(shape);
  for (auto const& p : support::plans_of_six(shape.classes()))
    CHECK(
        support::same_bits(plain.alone(p.plan, tokens, {7, 1}), paged.alone(p.plan, tokens, {12})));
}

// Law 11: a map in which all lead is the ordinary transformer.
TEST_CASE_TEMPLATE_DEFINE("the identity plan is plain attention", S, serving_identity) {
  auto const tokens = support::toy_tokens(8, 7);
  support::toy_shape const shape;
  auto const classes = shape.classes();
  support::toy_stack<S> toy(shape);
  auto const identity = toy.alone(*make_plan(strata::identity_map(6), classes), tokens, {3, 1});
  support::toy_sources const own{{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}};
  auto const dense = support::toy_oracle<typename S::k_codec, typename S::v_codec>(
      toy.model, own, tokens, support::first_positions(tokens.size()));
  CHECK(support::worst_error(identity, dense) < support::toy_bound<typename decltype(toy)::number>);
  auto const same = [&](auto const& map) {
    return support::same_bits(toy.alone(*make_plan(map, classes), tokens, {3, 1}), identity);
  };
  CHECK(same(strata::grouped_map(6, 1)));
  CHECK(same(strata::spread_map(6, 6)));
  CHECK(same(strata::tail_map(6, 0)));
  CHECK(same(strata::leader_set(6, {0, 1, 2, 3, 4, 5})));
  CHECK_FALSE(same(strata::grouped_map(6, 2)));
}
TEST_CASE_TEMPLATE_APPLY(serving_identity, exact_storages);
