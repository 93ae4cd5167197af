// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Parameters of samplers that no plan is drawn with, and recorded routes.
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/plan.hpp>
#include <strata/routing/recorded_route.hpp>

#include "support/models.hpp"
#include "support/print.hpp"
#include "support/samplers.hpp"

using strata::errc;
using strata::grouped_map;
using strata::recorded_route;
using strata::status;
using strata::strategy_mixture;
using strata::table_map;

static_assert(strata::routing_sampler<recorded_route>);

namespace {

/// What make_plan says, which `check` says beforehand, but for what only a draw can show.
status outcome(auto const& sampler, std::int32_t layers = 12) {
  auto const classes = strata::kv_classes::uniform(layers);
  auto const planned = strata::make_plan(sampler, classes, {}).state();
  CHECK(strata::check(sampler, classes) ==
        (planned.code == errc::illegal_draw ? status{} : planned));
  return planned;
}

}  // namespace

TEST_CASE("a sampler over a map refuses what the map refuses") {
  CHECK(outcome(strata::fixed_route(grouped_map(12, 0))) ==
        status{errc::value_too_small, {}, 0, 1});
  CHECK(outcome(strata::coin_to_map(grouped_map(12, 0), 0.5)) ==
        status{errc::value_too_small, {}, 0, 1});
  CHECK(outcome(strata::coin_to_map(strata::spread_map(12, 13), 0.5)) ==
        status{errc::value_too_large, {}, 13, 12});
  CHECK(outcome(strata::fixed_route(strata::leader_set(12, {0, 12}))) ==
        status{errc::layer_out_of_range, {12}, 12, 12});
}

TEST_CASE("a map or a record of another depth is refused, as law 6 demands") {
  auto const of_12_layers = [](std::int32_t layers) {
    return status{errc::layer_count_mismatch, {}, layers, 12};
  };
  for (auto const layers : {11, 13}) {
    grouped_map const map(layers, 3);
    auto const table = table_map::from(map);
    std::vector<std::int32_t> const zeros(static_cast<std::size_t>(layers), 0);
    CHECK(strata::make_plan(map, strata::kv_classes::uniform(12)).state() == of_12_layers(layers));
    CHECK(outcome(strata::fixed_route(map)) == of_12_layers(layers));
    CHECK(outcome(strata::coin_to_map(map, 0.5)) == of_12_layers(layers));
    CHECK(outcome(strategy_mixture{table}) == of_12_layers(layers));
    CHECK(outcome(strata::any_sampler(strata::fixed_route(table))) == of_12_layers(layers));
    CHECK(outcome(recorded_route(zeros)) == of_12_layers(layers));
  }
}

TEST_CASE("a map without an answer for a layer draws nothing there") {
  CHECK(outcome(strata::fixed_route(strata::leader_set(12, {1}))) ==
        status{errc::illegal_draw, {0}, -1, 1});
  CHECK(outcome(strata::coin_to_map(strata::leader_set(12, {1}), 0.0)) ==
        status{errc::illegal_draw, {0}, -1, 1});
}

TEST_CASE("leader sets are drawn with 1 to 16 retentions") {
  using strata::random_leader_set;
  CHECK(outcome(random_leader_set{}).ok());
  CHECK(outcome(random_leader_set(std::vector<double>{})) ==
        status{errc::value_too_small, {}, 0, 1});
  CHECK(outcome(random_leader_set(std::vector<double>(16, 0.5))).ok());
  CHECK(outcome(random_leader_set(std::vector<double>(17, 0.5))) ==
        status{errc::value_too_large, {}, 17, 16});
}

TEST_CASE("a mixture holds 1 to 8 maps of one depth") {
  auto const map = table_map::from(grouped_map(12, 3));
  auto const deeper = table_map::from(grouped_map(13, 3));
  CHECK(outcome(strategy_mixture{}) == status{errc::value_too_small, {}, 0, 1});
  CHECK(outcome(strategy_mixture(std::vector<table_map>(8, map))).ok());
  CHECK(outcome(strategy_mixture(std::vector<table_map>(9, map))) ==
        status{errc::value_too_large, {}, 9, 8});
  CHECK(outcome(strategy_mixture{map, map, deeper}) ==
        status{errc::layer_count_mismatch, {}, 13, 12});
}

TEST_CASE_TEMPLATE("a recorded route replays a drawn plan exactly", Sampler, SUPPORT_ALL_SAMPLERS) {
  for (auto const& m : support::all_models()) {
    auto const sampler = support::sampler_for<Sampler>::make(m);
    for (std::uint64_t step = 0; step < 5; ++step) {
      auto const drawn = strata::make_plan(sampler, m.classes(), {3, step, 0, 0, 0});
      REQUIRE(drawn.ok());
      recorded_route const replay(support::k_sources(*drawn));
      auto const replayed = strata::make_plan(replay, m.classes(), {99, 99, 9, 9, 9});
      REQUIRE(replayed.ok());
      CHECK(*replayed == *drawn);
    }
  }
}

TEST_CASE("a recorded route reaches as deep as a plan") {
  std::vector<std::int32_t> sources(256, 0);
  sources[255] = 255;
  recorded_route const deep(sources);
  CHECK(deep.num_layers() == 256);
  auto const plan = strata::make_plan(deep, strata::kv_classes::uniform(256), {});
  REQUIRE(plan.ok());
  CHECK(support::k_sources(*plan) == sources);
  CHECK(outcome(recorded_route(std::vector<std::int32_t>(257, 0)), 256) ==
        status{errc::too_many_layers, {}, 257, 256});
}

TEST_CASE("what a recorded route cannot mean is an illegal draw of that layer") {
  auto const replay = [](std::vector<std::int32_t> const& sources) {
    return outcome(recorded_route(sources), 4);
  };
  CHECK(replay({0, 0, 1, 2}).ok());
  CHECK(replay({0, 0, 3, 2}) == status{errc::illegal_draw, {2}, 3, 3});
  CHECK(replay({1, 0, 1, 2}) == status{errc::illegal_draw, {0}, 1, 1});
  for (auto const none : {-1, -100, 256, 65536, 65537, std::numeric_limits<int>::max()})
    CHECK(replay({0, 0, none, 2}) == status{errc::illegal_draw, {2}, none, 3});
}
