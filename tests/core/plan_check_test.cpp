// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Plans drawn with a sampler each for K and V, and plans that come from outside.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>
#include <strata/routing/fixed_route.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/routing/self_only.hpp>

#include "support/models.hpp"
#include "support/oracle.hpp"
#include "support/print.hpp"
#include "support/samplers.hpp"

using strata::check;
using strata::errc;
using strata::make_plan;
using strata::route_plan;
using strata::status;
using strata::use;

namespace {

/// Layer `at` is sent to `answer`.
struct misled {
  std::int32_t at, answer;
  constexpr strata::layer_id operator()(strata::candidates c, strata::draw_key) const noexcept {
    return c.reader().index == at ? strata::layer_id{answer} : c.reader();
  }
};

}  // namespace

TEST_CASE("K and V may be drawn by samplers of their own") {
  auto const m = support::crazy_quilt();
  auto const previous = strata::random_previous(0.3);
  for (std::uint64_t step = 0; step < 20; ++step) {
    strata::draw_key const key{60, step, 0, 0, 0};
    auto const one = *make_plan(previous, m.classes(), key);
    auto const other = *make_plan(strata::self_only{}, m.classes(), key);
    auto const both = make_plan(previous, strata::self_only{}, m.classes(), key);
    auto const swapped = make_plan(strata::self_only{}, previous, m.classes(), key);
    REQUIRE(both.ok());
    REQUIRE(swapped.ok());
    CHECK(support::plan_fault(*both, m) == "");
    for (std::int32_t l = 0; l < m.num_layers(); ++l) {
      CHECK((*both)[{l}].k == one[{l}].k);
      CHECK((*both)[{l}].v == other[{l}].v);
      CHECK((*swapped)[{l}].k == other[{l}].k);
      CHECK((*swapped)[{l}].v == one[{l}].v);
    }
    CHECK(*make_plan(previous, previous, m.classes(), key) == one);  // both see the same key
  }
}

TEST_CASE("a bad sampler of K and a bad sampler of V are both refused") {
  auto const classes = strata::kv_classes::uniform(4);
  strata::self_only const good;
  status const illegal{errc::illegal_draw, {1}, 3, 2};
  CHECK(make_plan(misled{1, 3}, good, classes, {}).state() == illegal);
  CHECK(make_plan(good, misled{1, 3}, classes, {}).state() == illegal);
  auto const bad = strata::random_previous(2.0);
  CHECK(make_plan(bad, good, classes, {}).state().code == errc::not_a_probability);
  CHECK(make_plan(good, bad, classes, {}).state().code == errc::not_a_probability);
  CHECK(make_plan(good, good, strata::kv_classes::uniform(0), {}).state().code == errc::no_layers);
}

TEST_CASE("what make_plan wrote passes the check for its own use") {
  for (auto const& m : support::all_models()) {
    auto const classes = m.classes();
    CAPTURE(m.name);
    auto const drawn = *make_plan(strata::random_previous(0.5), classes, {61, 0, 0, 0, 0});
    auto const served = *make_plan(support::map_within_classes(m, 3), classes);
    CHECK(check(drawn, classes, use::training).ok());
    CHECK(check(served, classes, use::training).ok());
    CHECK(check(served, classes, use::serving).ok());
  }
}

TEST_CASE("a source of a smaller window passes for training and not for serving") {
  auto const classes = support::mixed_windows(3).classes();  // windows 512, all, 64
  std::vector<std::int32_t> const sources{0, 0, 2};
  auto const map = *strata::table_map::make(sources);
  auto const plan = *make_plan(strata::fixed_route(map), classes, {});
  CHECK(check(plan, classes, use::training).ok());
  CHECK(check(plan, classes, use::serving) == status{errc::window_too_small, {1}, 0, 512});
}

TEST_CASE("a plan of another depth or another model is refused") {
  auto const plan = *make_plan(strata::grouped_map(8, 4));
  CHECK(check(plan, strata::kv_classes::uniform(9), use::serving) ==
        status{errc::plan_mismatch, {}, 8, 9});
  CHECK(check(plan, support::linear_hybrid(8).classes(), use::serving) ==
        status{errc::source_without_kv, {0}, 0, 0});
  CHECK(check(plan, support::two_stages(8).classes(), use::serving).ok());  // stages of four
  CHECK(check(*make_plan(strata::grouped_map(8, 8)), support::two_stages(8).classes(),
              use::serving) == status{errc::stage_mismatch, {4}, 0, 0});
  CHECK(check(route_plan{}, strata::kv_classes::uniform(0), use::serving).code == errc::no_layers);
}

TEST_CASE("no field of a plan can be changed unnoticed") {
  auto const classes = strata::kv_classes::uniform(8);
  auto const changed = [&](auto change) {
    auto plan = *make_plan(strata::grouped_map(8, 4));
    change(plan);
    return check(plan, classes, use::serving);
  };
  CHECK(changed([](route_plan&) {}).ok());
  status const row_5{errc::bad_plan, {5}, 4, 0};
  CHECK(changed([](route_plan& p) { p.layers[5].k.slot = {0}; }) == row_5);
  CHECK(changed([](route_plan& p) { p.layers[5].v.slot = {7}; }) == row_5);
  CHECK(changed([](route_plan& p) { p.layers[5].v.own_slot = {1}; }) == row_5);
  CHECK(changed([](route_plan& p) { p.layers[5].k.stored = true; }) == row_5);
  CHECK(changed([](route_plan& p) { p.layers[5].v.last_reader = true; }) == row_5);
  CHECK(changed([](route_plan& p) { ++p.k_slots; }).code == errc::bad_plan);
  CHECK(changed([](route_plan& p) { --p.v_slots; }).code == errc::bad_plan);
  CHECK(changed([](route_plan& p) { --p.tail_begin; }).code == errc::bad_plan);
  // Another source is another plan: the rows that it makes wrong are found.
  CHECK(changed([](route_plan& p) { p.layers[7].k.source = {0}; }).code == errc::bad_plan);
  CHECK(changed([](route_plan& p) { p.layers[5].k.source = {6}; }) ==
        status{errc::source_above_reader, {5}, 6, 5});
  CHECK_FALSE(changed([](route_plan& p) { p.layers[5].v.source = {400}; }).ok());
  CHECK_FALSE(changed([](route_plan& p) { p.layers[5].v.source = {-9}; }).ok());
}

TEST_CASE("a layer without K/V has no source in a plan from outside either") {
  auto const m = support::linear_hybrid(8);
  auto plan = *make_plan(support::map_within_classes(m, 2), m.classes());
  CHECK(check(plan, m.classes(), use::serving).ok());
  plan.layers[5].k.source = {3};
  CHECK(check(plan, m.classes(), use::serving) == status{errc::source_without_kv, {5}, 3, 0});
}
