// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Models whose layers are not alike: layers without K/V, two KV classes, sliding windows, all in
// one stack and one batch, with strategies that find their leaders within a class.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <strata/map/strategy.hpp>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

namespace {

std::vector<support::toy_shape> hybrid_shapes() {
  auto const global = support::toy_kind(2, 6, 4);
  auto const local = support::toy_kind(1, 4, 8, 3);
  auto const linear = support::toy_linear();
  auto narrow = global;  // the class of `global`, but a cache of it forgets
  narrow.window = 5;
  return {
      {.name = "3 local : 1 global", .layers = {local, local, local, global, local, local, global}},
      {.name = "linear among attention",
       .layers = {linear, global, linear, global, linear, linear, global, global}},
      {.name = "linear on top", .layers = {global, global, linear, global, linear}},
      {.name = "a window within one class",
       .layers = {global, narrow, global, narrow, narrow, global}},
      {.name = "everything",
       .layers = {linear, global, local, narrow, global, linear, local, global, local, narrow},
       .softcap = 3,
       .sinks = true},
  };
}

/// What a strategy means for a shape, found by hand: each layer reads the nearest leader at or
/// before it of its class that keeps at least its window; no leader, no plan.
bool sources_by_hand(support::toy_shape const& shape, std::vector<bool> const& leads,
                     support::toy_sources& sources) {
  sources = {};
  for (std::size_t l = 0; l < leads.size(); ++l) {
    auto const& reader = shape.layers[l];
    auto source = static_cast<std::int32_t>(l);
    for (; source >= 0 && reader.has_kv; --source) {
      auto const& s = shape.layers[static_cast<std::size_t>(source)];
      if (leads[static_cast<std::size_t>(source)] && s.has_kv && s.kv == reader.kv &&
          s.window >= reader.window)
        break;
    }
    if (source < 0) return false;
    sources.k.push_back(source);
    sources.v.push_back(source);
  }
  return true;
}

struct strategy {
  std::string text;
  std::vector<bool> leads;
};

std::vector<strategy> strategies(std::size_t layers) {
  std::vector<strategy> all{{"full", std::vector(layers, true)}};
  for (std::size_t k = 2; k <= layers; ++k) {
    strategy every{"every:" + std::to_string(k), {}};
    strategy tail{"tail:" + std::to_string(k - 1), {}};
    for (std::size_t l = 0; l < layers; ++l) {
      every.leads.push_back(l % k == 0);
      tail.leads.push_back(l < layers - (k - 1));
    }
    all.push_back(every);
    all.push_back(tail);
  }
  return all;
}

std::vector<support::toy_plan> plans_for(support::toy_shape const& shape) {
  std::vector<support::toy_plan> plans;
  for (auto const& s : strategies(shape.layers.size())) {
    CAPTURE(s.text);
    support::toy_sources sources;
    bool const exists = sources_by_hand(shape, s.leads, sources);
    auto const map = strata::parse_strategy(s.text, shape.classes());
    REQUIRE(map.ok() == exists);
    if (exists) plans.push_back({s.text, sources, *make_plan(*map, shape.classes())});
  }
  return plans;
}

support::storage_room const hybrid_room{
    .max_sequences = 24, .max_tokens = 12, .k_tensors = 160, .v_tensors = 160, .block_size = 5};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("hybrid models: every pass gives the dense numbers", Toy, hybrid_passes) {
  auto const tokens = support::toy_tokens(9, 40);
  for (auto const& shape : hybrid_shapes()) {
    CAPTURE(shape.name);
    Toy toy(shape, {2, false}, hybrid_room);
    auto const plans = plans_for(shape);
    CHECK(plans.size() >= 2);
    for (auto const& p : plans) {
      CAPTURE(p.name);
      auto const whole = toy.alone(p.plan, tokens, {tokens.size()});
      CHECK(support::same_bits(toy.alone(p.plan, tokens, {1}), whole));
      CHECK(support::same_bits(toy.alone(p.plan, tokens, {4, 1, 3}), whole));
      auto const dense = toy.dense(p.sources, tokens);
      CHECK(support::worst_error(whole, dense) < Toy::bound);
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(hybrid_passes, support::double_toys);

TEST_CASE_TEMPLATE_DEFINE("hybrid models: all plans in one batch", Toy, hybrid_batch) {
  auto const tokens = support::toy_tokens(8, 41);
  for (auto const& shape : hybrid_shapes()) {
    CAPTURE(shape.name);
    Toy toy(shape, {}, hybrid_room);
    auto const plans = plans_for(shape);
    std::vector<support::toy_entry> batch;
    std::vector<std::vector<double>> alone;
    for (auto const& p : plans) alone.push_back(toy.alone(p.plan, tokens, {8}));
    for (auto const& p : plans) batch.push_back({*toy.stack.open(p.plan), {}, {}, {}});
    for (auto const& [from, at] : {std::pair{0, 3}, {3, 4}, {4, 6}, {6, 8}}) {
      std::vector<double> expected;
      for (std::size_t i = 0; i < plans.size(); ++i) {
        batch[i] = {
            batch[i].sequence, {tokens.begin() + from, tokens.begin() + at}, strata::logits::last};
        expected.insert(expected.end(), alone[i].begin() + (at - 1) * shape.width,
                        alone[i].begin() + at * shape.width);
      }
      CHECK(support::same_bits(toy.server.serve(batch).logits, expected));
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(hybrid_batch, support::double_toys);

// A layer whose cache keeps a window must not serve one that looks further back.
TEST_CASE("a plan that crosses classes or windows is not opened") {
  auto const shape = hybrid_shapes()[4];
  support::toy_stack<strata::contiguous_storage<strata::f64_codec>> toy(shape);
  auto plan = *make_plan(strata::identity_map(10), shape.classes());
  CHECK(toy.stack.open(plan).ok());
  auto crossing = plan;
  crossing.layers[7].k.source = {2};  // global reads local
  CHECK(toy.stack.open(crossing).state().code == strata::errc::class_mismatch);
  crossing = plan;
  crossing.layers[4].v.source = {3};  // all tokens from a cache of five
  CHECK(toy.stack.open(crossing).state().code == strata::errc::window_too_small);
  crossing = plan;
  crossing.layers[3].k.source = {1};  // allowed, but the rest of the plan does not know of it
  CHECK(toy.stack.open(crossing).state().code == strata::errc::bad_plan);
}
