// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Laws 1, 3 and 6 over every pair of a map and a model: the checks are held against an oracle that
// tries everything, and training with a map against serving with it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/map/table_map.hpp>
#include <strata/map/tail_map.hpp>
#include <strata/plan.hpp>
#include <strata/routing/fixed_route.hpp>

#include "support/maps.hpp"
#include "support/models.hpp"
#include "support/oracle.hpp"
#include "support/print.hpp"
#include "support/samplers.hpp"

using strata::errc;
using strata::kv_classes;
using strata::use;
using support::model;

namespace {

/// Maps of one type for a model, among them such as break a law there.
template <class Map>
struct maps_for {
  static std::vector<Map> make(model const& m) {
    std::vector<Map> maps;
    auto const layers = m.num_layers();
    for (std::int32_t n = 1; n <= layers; n += n < 16 ? 1 : 60) maps.push_back(Map(layers, n));
    return maps;
  }
};

template <>
struct maps_for<strata::identity_map<>> {
  static std::vector<strata::identity_map<>> make(model const& m) {
    return {strata::identity_map(m.num_layers())};
  }
};

template <>
struct maps_for<strata::leader_set> {
  static std::vector<strata::leader_set> make(model const& m) {
    std::mt19937 bits(3);
    std::vector<strata::leader_set> maps;
    for (unsigned i = 0; i < 60; ++i) {
      std::vector<std::int32_t> leaders;
      for (std::int32_t l = 0; l < m.num_layers(); ++l)
        if (l < static_cast<std::int32_t>(i % 10) || bits() % 3 == 0) leaders.push_back(l);
      maps.push_back({m.num_layers(), leaders});
    }
    return maps;
  }
};

/// Maps that fit the classes, and such with up to three answers changed at random.
template <>
struct maps_for<strata::table_map> {
  static std::vector<strata::table_map> make(model const& m) {
    std::mt19937 bits(4);
    auto const layers = static_cast<std::uint32_t>(m.num_layers());
    std::vector<strata::table_map> maps;
    for (std::size_t size = 1; size <= 5; ++size) {
      auto const right = support::map_within_classes(m, size);
      maps.push_back(right);
      std::vector<std::int32_t> sources;
      for (int i = 0; i < 40; ++i) {
        if (i % 3 == 0) sources = support::sources(right);
        sources[bits() % layers] = static_cast<std::int32_t>(bits() % layers);
        maps.push_back(*strata::table_map::make(sources));
      }
    }
    return maps;
  }
};

#define ALL_MAPS                                                                       \
  strata::identity_map<>, strata::grouped_map<>, strata::spread_map, strata::tail_map, \
      strata::leader_set, strata::table_map

}  // namespace

TEST_CASE_TEMPLATE("law 1: a map is refused where it breaks a law, and only there", Map, ALL_MAPS) {
  int accepted = 0, refused = 0;
  for (auto const& m : support::all_models())
    for (auto const& map : maps_for<Map>::make(m)) {
      if (!strata::detail::check_parameters(map).ok()) continue;  // the subject of tests/map
      auto const state = strata::check(map, m.classes());
      auto const fault = support::first_fault(map, m);
      CAPTURE(m.name);
      CHECK(state.ok() == !fault.has_value());
      CHECK(state.layer.index == fault.value_or(-1));
      CHECK(strata::make_plan(map, m.classes()).state() == state);
      ++(fault ? refused : accepted);
    }
  CHECK(accepted > 5);
  CHECK((refused > 5 || std::is_same_v<Map, strata::identity_map<>>));
}

TEST_CASE("law 1: each way to break it is refused with a reason of its own") {
  std::vector<errc> seen;
  for (auto const& m : support::all_models())
    for (auto const& map : maps_for<strata::table_map>::make(m)) {
      auto const state = strata::check(map, m.classes());
      if (state.ok()) continue;
      auto const l = state.layer.index, s = map.source(state.layer).index;
      auto const& reader = m.layers[static_cast<std::size_t>(l)];
      auto const& source = m.layers[static_cast<std::size_t>(s)];
      CAPTURE(state);
      CHECK(state.value == s);
      switch (seen.push_back(state.code), state.code) {
        case errc::source_above_reader:
          CHECK(s > l);
          break;
        case errc::source_not_a_leader:
          CHECK(map.source({s}).index == state.bound);
          CHECK(state.bound != s);
          break;
        case errc::source_without_kv:
          CHECK_FALSE(source.has_kv);
          break;
        case errc::class_mismatch:
          CHECK(reader.kv != source.kv);
          break;
        case errc::stage_mismatch:
          CHECK(reader.stage != source.stage);
          break;
        case errc::window_too_small:
          CHECK(source.window < reader.window);
          CHECK(state.bound == source.window);
          break;
        default:
          FAIL_CHECK("an unexpected reason");
      }
    }
  for (auto const code :
       {errc::source_above_reader, errc::source_not_a_leader, errc::source_without_kv,
        errc::class_mismatch, errc::stage_mismatch, errc::window_too_small}) {
    CAPTURE(code);
    CHECK(std::find(seen.begin(), seen.end(), code) != seen.end());
  }
}

TEST_CASE("law 3: any two layers of any model may read each other as the definition says") {
  for (auto const& m : support::all_models()) {
    auto const classes = m.classes();
    auto const step = m.num_layers() > 100 ? 17 : 1;
    for (std::int32_t r = 0; r < m.num_layers(); r += step)
      for (std::int32_t s = 0; s < m.num_layers(); s += step) {
        REQUIRE(classes.readable({r}, {s}, use::training).ok() == support::trains_with(m, r, s));
        REQUIRE(classes.readable({r}, {s}, use::serving).ok() == support::serves_with(m, r, s));
      }
  }
}

TEST_CASE_TEMPLATE("law 6: training with a fixed map and serving with it are the same plan", Map,
                   ALL_MAPS) {
  int compared = 0;
  for (auto const& m : support::all_models())
    for (auto const& map : maps_for<Map>::make(m)) {
      auto const served = strata::make_plan(map, m.classes());
      if (!served.ok()) continue;
      auto const trained =
          strata::make_plan(strata::fixed_route(map), m.classes(), {5, 6, 7, 8, 9});
      CAPTURE(m.name);
      REQUIRE(trained.ok());
      CHECK(*served == *trained);
      ++compared;
    }
  CHECK(compared > 5);
}

TEST_CASE_TEMPLATE("law 6: training refuses a fixed map where a source is no candidate", Map,
                   ALL_MAPS) {
  for (auto const& m : support::all_models())
    for (auto const& map : maps_for<Map>::make(m)) {
      if (!strata::detail::check_parameters(map).ok()) continue;
      auto const state = strata::make_plan(strata::fixed_route(map), m.classes(), {}).state();
      auto const illegal = support::first_illegal(map, m);
      CAPTURE(m.name);
      CHECK(state.ok() == !illegal.has_value());
      CHECK(state.layer.index == illegal.value_or(-1));
      if (illegal) CHECK(state.code == errc::illegal_draw);
    }
}
