// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 5: a full pass, chunked prefill and token by token are the same bits, for every plan,
// storage and kernel, however the work is split; and they are the dense computation without any cache.
#include <doctest/doctest.h>

#include <vector>

#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/toy_plans.hpp"

namespace {

std::vector<std::vector<std::size_t>> const all_chunks{{1}, {4}, {5, 1}, {2, 7, 3}, {10, 1}};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("full pass == chunked prefill == token by token", Toy, serving_passes) {
  auto const tokens = support::toy_tokens(11, 3);
  support::toy_shape const shape;
  Toy toy(shape);
  for (auto const& p : support::plans_of_six(shape.classes())) {
    CAPTURE(p.name);
    auto const whole = toy.alone(p.plan, tokens, {tokens.size()});
    for (auto const& chunks : all_chunks)
      CHECK(support::same_bits(toy.alone(p.plan, tokens, chunks), whole));
    auto const dense = toy.dense(p.sources, tokens);
    CHECK(support::worst_error(whole, dense) < Toy::bound);
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_passes, support::exact_toys);

TEST_CASE_TEMPLATE_DEFINE("shares do not change bits", Toy, serving_shares) {
  auto const tokens = support::toy_tokens(9, 4);
  support::toy_shape shape;
  shape.softcap = 1.5;
  shape.sinks = true;
  Toy one(shape);
  for (auto const& exec : support::all_executors()) {
    CAPTURE(exec.shares);
    Toy toy(shape, exec);
    for (auto const& p : support::plans_of_six(shape.classes())) {
      CAPTURE(p.name);
      auto const whole = one.alone(p.plan, tokens, {tokens.size()});
      CHECK(support::same_bits(toy.alone(p.plan, tokens, {4, 1}), whole));
      auto const dense = toy.dense(p.sources, tokens);
      CHECK(support::worst_error(whole, dense) < Toy::bound);
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_shares, support::exact_toys);

// What a row's neighbours want changes which rows are computed above the tail, and nothing else.
TEST_CASE_TEMPLATE_DEFINE("logits that nobody wants cost nobody a bit", Toy, serving_logits) {
  auto const tokens = support::toy_tokens(10, 5);
  support::toy_shape const shape;
  Toy toy(shape);
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
TEST_CASE_TEMPLATE_APPLY(serving_logits, support::exact_toys);

TEST_CASE_TEMPLATE("all storages give the same bits", Kernel, strata::reference_attention,
                   strata::cpu::blocked_attention) {
  using codec = strata::f64_codec;
  auto const tokens = support::toy_tokens(12, 6);
  support::toy_shape const shape;
  support::toy_stack<strata::contiguous_storage<codec>, Kernel> plain(shape);
  support::toy_stack<strata::paged_storage<codec>, Kernel> paged(shape);
  support::toy_stack<strata::borrowed_storage<codec>, Kernel> borrowed(shape);
  for (auto const& p : support::plans_of_six(shape.classes())) {
    auto const whole = paged.alone(p.plan, tokens, {12});
    CHECK(support::same_bits(plain.alone(p.plan, tokens, {7, 1}), whole));
    CHECK(support::same_bits(borrowed.alone(p.plan, tokens, {2, 4}), whole));
  }
}

// Kernels read keys in tiles and splits, of 64 and 512 in the blocked one: passes whose chunks begin
// and end on, before and behind those borders.
TEST_CASE_TEMPLATE_DEFINE("passes over many tiles of keys agree bit for bit", Toy, serving_tiles) {
  auto const tokens = support::toy_tokens(530, 10);
  support::toy_shape shape;
  shape.layers.resize(3);
  auto const classes = shape.classes();
  std::vector const plans{support::named_plan("one leader", strata::grouped_map(3, 3), classes),
                          support::named_plan("K shared, V not", strata::grouped_map(3, 2),
                                              strata::identity_map(3), classes)};
  support::storage_room const room{.max_tokens = 530, .k_tensors = 3, .v_tensors = 3};
  Toy toy(shape, {3, true}, room);
  for (auto const& p : plans) {
    CAPTURE(p.name);
    auto const whole = toy.alone(p.plan, tokens, {tokens.size()});
    CHECK(support::worst_error(whole, toy.dense(p.sources, tokens)) < Toy::bound);
    for (auto const& chunks : support::sampled<std::vector<std::size_t>>(
             {{1}, {64}, {63, 2, 65}, {511, 1}, {513, 17}}, 4))
      CHECK(support::same_bits(toy.alone(p.plan, tokens, chunks), whole));
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_tiles, support::double_toys);

// Law 11: a map in which all lead is the ordinary transformer.
TEST_CASE_TEMPLATE_DEFINE("the identity plan is plain attention", Toy, serving_identity) {
  auto const tokens = support::toy_tokens(8, 7);
  support::toy_shape const shape;
  auto const classes = shape.classes();
  Toy toy(shape);
  auto const identity = toy.alone(*make_plan(strata::identity_map(6), classes), tokens, {3, 1});
  support::toy_sources const own{{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}};
  auto const dense = toy.dense(own, tokens);
  CHECK(support::worst_error(identity, dense) < Toy::bound);
  auto const same = [&](auto const& map) {
    return support::same_bits(toy.alone(*make_plan(map, classes), tokens, {3, 1}), identity);
  };
  CHECK(same(strata::grouped_map(6, 1)));
  CHECK(same(strata::spread_map(6, 6)));
  CHECK(same(strata::tail_map(6, 0)));
  CHECK(same(strata::leader_set(6, {0, 1, 2, 3, 4, 5})));
  CHECK_FALSE(same(strata::grouped_map(6, 2)));
}
TEST_CASE_TEMPLATE_APPLY(serving_identity, support::exact_toys);
