// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/map/table_map.hpp>
#include <strata/map/tail_map.hpp>

#include "support/maps.hpp"
#include "support/models.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::status;
using strata::table_map;

static_assert(strata::layer_map<table_map>);

namespace {

status refusal(std::vector<std::int32_t> const& sources) {
  return table_map::make(sources).state();
}

}  // namespace

TEST_CASE("a table answers what it was told") {
  std::vector<std::int32_t> const sources{0, 0, 2, 1, 4, 2};
  auto const map = table_map::make(sources);
  REQUIRE(map.ok());
  CHECK(map->num_layers() == 6);
  CHECK(support::sources(*map) == sources);
}

TEST_CASE("a table of the greatest depth reaches its last layer") {
  std::vector<std::int32_t> sources(256, 0);
  sources[254] = sources[255] = 254;
  auto const map = table_map::make(sources);
  REQUIRE(map.ok());
  CHECK(map->source({255}) == strata::layer_id{254});
  CHECK(strata::check(*map).ok());
  sources[255] = 255;
  CHECK(table_map::make(sources)->source({255}) == strata::layer_id{255});
}

TEST_CASE("a table refuses what is no layer of the model and names where") {
  CHECK(refusal({0, -1, 0}) == status{errc::source_out_of_range, {1}, -1, 3});
  CHECK(refusal({0, 0, 3}) == status{errc::source_out_of_range, {2}, 3, 3});
  CHECK(refusal({256}) == status{errc::source_out_of_range, {0}, 256, 1});
  CHECK(refusal(std::vector<std::int32_t>(257, 0)) == status{errc::too_many_layers, {}, 257, 256});
}

TEST_CASE("what a table may hold is not yet what a model may use") {
  CHECK(strata::check(*table_map::make({})).code == errc::no_layers);
  std::vector<std::int32_t> const upwards{0, 2, 2};
  CHECK(strata::check(*table_map::make(upwards)) == status{errc::source_above_reader, {1}, 2, 1});
  std::vector<std::int32_t> const chained{0, 0, 1};
  CHECK(strata::check(*table_map::make(chained)) == status{errc::source_not_a_leader, {2}, 1, 0});
}

TEST_CASE_TEMPLATE("any map becomes a table with the same answers", Map, strata::grouped_map<>,
                   strata::spread_map, strata::tail_map) {
  for (std::int32_t layers = 2; layers <= 40; ++layers)
    for (std::int32_t number = 1; number < layers; ++number) {
      Map const map(layers, number);
      auto const table = table_map::from(map);
      CHECK(support::sources(table) == support::sources(map));
      CHECK(table == *table_map::make(support::sources(map)));
    }
}

TEST_CASE("where a map has no answer, the table sends the layer to itself") {
  auto const map = strata::leader_set(8, {3});  // layers 0 to 2 have no K/V
  auto const table = table_map::from(map);
  CHECK(support::sources(table) == std::vector{0, 1, 2, 3, 3, 3, 3, 3});
  CHECK(strata::check(table, support::linear_hybrid(8).classes()).ok());
}

TEST_CASE("tables are equal where all their answers are") {
  std::vector<std::int32_t> const a{0, 0, 2}, b{0, 0, 0}, longer{0, 0, 2, 0};
  CHECK(*table_map::make(a) == *table_map::make(a));
  CHECK(*table_map::make(a) != *table_map::make(b));
  CHECK(*table_map::make(a) != *table_map::make(longer));
}
