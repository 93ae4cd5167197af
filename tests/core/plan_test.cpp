// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/table_map.hpp>
#include <strata/map/tail_map.hpp>
#include <strata/plan.hpp>
#include <strata/routing/self_only.hpp>

#include "support/models.hpp"
#include "support/oracle.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::make_plan;
using strata::route;
using strata::route_plan;
using strata::status;

static_assert(std::is_trivially_copyable_v<route_plan>);
static_assert(std::is_trivially_copyable_v<strata::layer_step>);

namespace {

strata::table_map table_of_sources(std::vector<std::int32_t> const& sources) {
  return *strata::table_map::make(sources);
}

/// A sampler that replays a table, chains and all.
struct by_table {
  strata::table_map sources;
  constexpr strata::layer_id operator()(strata::candidates c, strata::draw_key) const noexcept {
    return sources.source(c.reader());
  }
};

/// The row of a leader that reads its own tensor, and that of a follower.
constexpr route leads(std::int32_t layer, std::int32_t slot, bool last_reader) {
  return {{layer}, {slot}, {slot}, true, last_reader};
}
constexpr route follows(std::int32_t source, std::int32_t slot, bool last_reader) {
  return {{source}, {slot}, strata::no_slot, false, last_reader};
}

route_plan drawn(std::vector<std::int32_t> const& sources) {
  auto const layers = static_cast<std::int32_t>(sources.size());
  return *make_plan(by_table{table_of_sources(sources)}, strata::kv_classes::uniform(layers), {});
}

}  // namespace

// The paper's figure 4: layers 1 and 3 of 5 lead (0 and 2 when counted from 0).
TEST_CASE("the paper's golden case, row by row") {
  auto const plan = make_plan(strata::leader_set(5, {0, 2}));
  REQUIRE(plan.ok());
  route const rows[] = {
      leads(0, 0, false),   follows(0, 0, true), leads(2, 1, false),
      follows(2, 1, false), follows(2, 1, true),
  };
  for (int l = 0; l < 5; ++l) {
    CAPTURE(l);
    CHECK((*plan)[{l}].k == rows[l]);
    CHECK((*plan)[{l}].v == rows[l]);
  }
  CHECK(plan->num_layers == 5);
  CHECK(plan->k_slots == 2);
  CHECK(plan->v_slots == 2);
  CHECK(plan->tail_begin == 2);
  for (int l = 5; l < strata::max_layers; ++l) REQUIRE(plan->layers[l] == strata::layer_step{});
}

TEST_CASE("the plan of a map is made at compile time") {
  constexpr auto plan = make_plan(strata::grouped_map<36, 4>{});
  static_assert(plan.ok() && plan->k_slots == 9 && plan->tail_begin == 32);
}

// FusedKV-Lite: K from the middle of the model, V from its bottom.
TEST_CASE("K and V may have maps of their own") {
  auto const plan = make_plan(table_of_sources({0, 1, 2, 3, 3, 3}),
                              table_of_sources({0, 1, 2, 2, 1, 0}), strata::kv_classes::uniform(6));
  REQUIRE(plan.ok());
  CHECK(plan->k_slots == 4);
  CHECK(plan->v_slots == 3);
  CHECK((*plan)[{3}].k == leads(3, 3, false));
  CHECK((*plan)[{3}].v == follows(2, 2, true));
  CHECK((*plan)[{5}].k == follows(3, 3, true));
  CHECK((*plan)[{5}].v == follows(0, 0, true));
  CHECK((*plan)[{0}].k == leads(0, 0, true));
  CHECK((*plan)[{0}].v == leads(0, 0, false));
  CHECK(plan->tail_begin == 3);  // the last K, although V ended at layer 2
  CHECK(support::plan_fault(*plan, support::uniform_model(6)) == "");

  auto const swapped =
      make_plan(table_of_sources({0, 1, 2, 2, 1, 0}), table_of_sources({0, 1, 2, 3, 3, 3}),
                strata::kv_classes::uniform(6));
  REQUIRE(swapped.ok());
  CHECK(swapped->tail_begin == 3);  // the last V
  CHECK((*swapped)[{5}].k.source == strata::layer_id{0});
}

TEST_CASE("a bad map of K and a bad map of V are both refused") {
  auto const classes = strata::kv_classes::uniform(3);
  auto const good = table_of_sources({0, 0, 0}), bad = table_of_sources({0, 1, 0}),
             worse = table_of_sources({0, 2, 2});
  CHECK(make_plan(good, bad, classes).ok());
  CHECK(make_plan(good, worse, classes).state() == status{errc::source_above_reader, {1}, 2, 1});
  CHECK(make_plan(worse, good, classes).state() == status{errc::source_above_reader, {1}, 2, 1});
}

// Training only: layer 3 reads 2, whose own attention reads 1. K and V of 2 come from its input.
TEST_CASE("drawn routes may chain") {
  auto const plan = drawn({0, 0, 1, 2, 2});
  CHECK(plan.k_slots == 3);
  CHECK(plan[{1}].k == route{{0}, {0}, {1}, true, true});
  CHECK(plan[{2}].k == route{{1}, {1}, {2}, true, true});
  CHECK(plan[{3}].k == follows(2, 2, false));
  CHECK(plan[{4}].k == follows(2, 2, true));
  CHECK(plan[{0}].k == leads(0, 0, false));
  CHECK(plan.tail_begin == 2);
  CHECK(support::plan_fault(plan, support::uniform_model(5)) == "");
}

TEST_CASE("a layer that nobody reads stores nothing") {
  auto const plan = drawn({0, 0, 2, 0, 2});
  CHECK_FALSE(plan[{1}].k.stored);
  CHECK_FALSE(plan[{3}].v.stored);
  CHECK_FALSE(plan[{4}].k.stored);
  CHECK(plan.k_slots == 2);
  CHECK(plan[{2}].k.slot == strata::slot_id{1});  // slots leave no gap for layer 1
  CHECK(plan[{3}].k == follows(0, 0, true));
}

TEST_CASE("layers without K/V have no route") {
  auto const m = support::linear_hybrid(8);  // K/V at layers 3 and 7
  auto const plan = make_plan(strata::leader_set(8, {3}), m.classes());
  REQUIRE(plan.ok());
  CHECK((*plan)[{0}] == strata::layer_step{});
  CHECK((*plan)[{6}] == strata::layer_step{});
  CHECK((*plan)[{3}].k == leads(3, 0, false));
  CHECK((*plan)[{7}].k == follows(3, 0, true));
  CHECK(plan->k_slots == 1);
}

TEST_CASE("the tail begins at the last layer that stores") {
  auto const tail = [](auto const& map) { return make_plan(map)->tail_begin; };
  CHECK(tail(strata::identity_map(12)) == 11);
  CHECK(tail(strata::grouped_map(12, 4)) == 8);
  CHECK(tail(strata::grouped_map(13, 4)) == 12);
  CHECK(tail(strata::leader_set(12, {0})) == 0);
  CHECK(tail(strata::tail_map(30, 20)) == 9);
  CHECK(tail(strata::identity_map(1)) == 0);
}

TEST_CASE("linear attention above the last leader ends the tail: its state needs every token") {
  auto const tail = [](support::model const& m, std::vector<std::int32_t> const& leaders) {
    return make_plan(strata::leader_set(m.num_layers(), leaders), m.classes())->tail_begin;
  };
  CHECK(tail(support::linear_hybrid(8), {3}) == 7);     // 7 reads 3, and below it 6 is linear
  CHECK(tail(support::linear_hybrid(8), {3, 7}) == 7);  // 7 stores
  CHECK(tail(support::linear_hybrid(9), {3, 7}) == 9);  // the top is linear: no tail at all
  auto const full = support::full_attention(), linear = support::linear_attention();
  CHECK(tail({"linear in the middle", {full, full, linear, full, full}}, {0}) == 3);
  CHECK(tail({"linear below", {linear, full, full, full}}, {1}) == 1);
}

TEST_CASE("1 to 256 layers are planned, 0 and 257 refused") {
  auto const one = make_plan(strata::identity_map(1));
  REQUIRE(one.ok());
  CHECK((*one)[{0}].k == leads(0, 0, true));
  CHECK(one->k_slots == 1);

  auto const deep = make_plan(strata::leader_set(256, {0, 255}));
  REQUIRE(deep.ok());
  CHECK((*deep)[{254}].v == follows(0, 0, true));
  CHECK((*deep)[{255}].v == leads(255, 1, true));
  CHECK(make_plan(strata::identity_map(256))->k_slots == 256);

  status const too_many{errc::too_many_layers, {}, 257, 256};
  status const none{errc::no_layers, {}, 0, 1};
  CHECK(make_plan(strata::identity_map(257)).state() == too_many);
  CHECK(make_plan(strata::identity_map(0)).state() == none);
  CHECK(make_plan(strata::self_only{}, strata::kv_classes::uniform(257), {}).state() == too_many);
  CHECK(make_plan(strata::self_only{}, strata::kv_classes::uniform(0), {}).state() == none);
}

TEST_CASE("a map must be as deep as the model") {
  auto const classes = strata::kv_classes::uniform(12);
  CHECK(make_plan(strata::grouped_map(11, 2), classes).state() ==
        status{errc::layer_count_mismatch, {}, 11, 12});
  CHECK(make_plan(strata::grouped_map(13, 2), classes).state() ==
        status{errc::layer_count_mismatch, {}, 13, 12});
  CHECK(make_plan(strata::grouped_map(12, 2), strata::grouped_map(13, 2), classes).state() ==
        status{errc::layer_count_mismatch, {}, 13, 12});
}
