// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every map that takes a number or two, over every depth up to 40 and every parameter.
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <set>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/map/tail_map.hpp>

#include "support/maps.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::grouped_map;
using strata::identity_map;
using strata::spread_map;
using strata::status;
using strata::tail_map;
using support::is_nearest_leader_map;
using support::sources;

static_assert(strata::layer_map<grouped_map<>> && strata::layer_map<grouped_map<36, 4>>);
static_assert(strata::layer_map<identity_map<>> && strata::layer_map<identity_map<36>>);
static_assert(strata::layer_map<spread_map> && strata::layer_map<tail_map>);

// What is in the type needs no room, and what is proved there needs no run.
static_assert(std::is_empty_v<grouped_map<36, 4>> && std::is_empty_v<identity_map<36>>);
static_assert(sizeof(grouped_map<>) == 8 && sizeof(identity_map<>) == 4);
static_assert(strata::check(grouped_map<36, 4>{}).ok() && strata::check(identity_map<36>{}).ok());
static_assert(strata::check(grouped_map<36, 0>{}).code == errc::value_too_small);
static_assert(strata::check(grouped_map<257, 4>{}).code == errc::too_many_layers);

namespace {

constexpr std::int32_t deepest = 40;
constexpr auto int_min = std::numeric_limits<std::int32_t>::min();
constexpr auto int_max = std::numeric_limits<std::int32_t>::max();

std::set<std::int32_t> first_layers(std::int32_t count) {
  std::set<std::int32_t> layers;
  for (std::int32_t l = 0; l < count; ++l) layers.insert(layers.end(), l);
  return layers;
}

/// Depths and group sizes of a static map beside its dynamic twin.
template <std::int32_t Layers, std::int32_t... Sizes>
bool static_groups_agree(std::integer_sequence<std::int32_t, Sizes...>) {
  return (... &&
          (sources(grouped_map<Layers, Sizes + 1>{}) == sources(grouped_map(Layers, Sizes + 1))));
}

}  // namespace

TEST_CASE("identity_map: everybody leads") {
  for (std::int32_t layers = 1; layers <= deepest; ++layers)
    CHECK(is_nearest_leader_map(identity_map(layers), layers, first_layers(layers)));
  CHECK(sources(identity_map<7>{}) == sources(identity_map(7)));
  CHECK(sources(identity_map(3)) == std::vector{0, 1, 2});
}

TEST_CASE("grouped_map: golden rows") {
  CHECK(sources(grouped_map(7, 3)) == std::vector{0, 0, 0, 3, 3, 3, 6});
  CHECK(sources(grouped_map(6, 2)) == std::vector{0, 0, 2, 2, 4, 4});
  CHECK(sources(grouped_map(4, 9)) == std::vector{0, 0, 0, 0});
}

TEST_CASE("grouped_map: the first of each group leads, ceil(L / k) in all") {
  for (std::int32_t layers = 1; layers <= deepest; ++layers)
    for (std::int32_t size = 1; size <= deepest + 1; ++size) {
      std::set<std::int32_t> leaders;
      for (std::int32_t l = 0; l < layers; l += size) leaders.insert(l);
      CAPTURE(layers);
      CAPTURE(size);
      CHECK(is_nearest_leader_map(grouped_map(layers, size), layers, leaders));
      CHECK(strata::num_leaders(grouped_map(layers, size)) == (layers + size - 1) / size);
    }
}

TEST_CASE("grouped_map: in the type or at run time, the answers are the same") {
  using up_to_12 = std::make_integer_sequence<std::int32_t, 12>;
  CHECK(static_groups_agree<1>(up_to_12{}));
  CHECK(static_groups_agree<11>(up_to_12{}));
  CHECK(static_groups_agree<36>(up_to_12{}));
  CHECK(grouped_map<36, 4>{}.num_layers() == 36);
  CHECK(grouped_map<36, 4>{}.group_size() == 4);
  CHECK(grouped_map(36, 4).group_size() == 4);
}

TEST_CASE("grouped_map: a group has at least one layer") {
  for (auto const size : {0, -1, int_min}) {
    CHECK(strata::check(grouped_map(8, size)) == status{errc::value_too_small, {}, size, 1});
    CHECK(grouped_map(8, size).source({5}) == strata::no_layer);
  }
  CHECK(strata::check(grouped_map(8, int_max)).ok());
  CHECK(strata::check(grouped_map<>{}) == status{errc::value_too_small, {}, 0, 1});
}

TEST_CASE("spread_map: golden rows") {
  CHECK(sources(spread_map(10, 3)) == std::vector{0, 0, 0, 3, 3, 3, 6, 6, 6, 6});
  CHECK(sources(spread_map(5, 3)) == std::vector{0, 1, 1, 3, 3});
  CHECK(sources(spread_map(5, 5)) == std::vector{0, 1, 2, 3, 4});
  CHECK(sources(spread_map(5, 1)) == std::vector{0, 0, 0, 0, 0});
}

TEST_CASE("spread_map: leader i is floor(i L / N)") {
  for (std::int32_t layers = 1; layers <= deepest; ++layers)
    for (std::int32_t count = 1; count <= layers; ++count) {
      std::set<std::int32_t> leaders;
      for (std::int32_t i = 0; i < count; ++i) leaders.insert(i * layers / count);
      CAPTURE(layers);
      CAPTURE(count);
      CHECK(leaders.size() == static_cast<std::size_t>(count));
      CHECK(is_nearest_leader_map(spread_map(layers, count), layers, leaders));
    }
}

TEST_CASE("spread_map: with N that divides L it is the grouped map") {
  for (std::int32_t const size : {1, 2, 3, 4, 6, 9, 12, 18, 36})
    CHECK(sources(spread_map(36, 36 / size)) == sources(grouped_map(36, size)));
}

TEST_CASE("spread_map: 1 to L leaders") {
  CHECK(strata::check(spread_map(8, 0)) == status{errc::value_too_small, {}, 0, 1});
  CHECK(strata::check(spread_map(8, int_min)) == status{errc::value_too_small, {}, int_min, 1});
  CHECK(strata::check(spread_map(8, 9)) == status{errc::value_too_large, {}, 9, 8});
  CHECK(strata::check(spread_map(8, int_max)) == status{errc::value_too_large, {}, int_max, 8});
  CHECK_FALSE(strata::check(spread_map{}).ok());
  CHECK_FALSE(strata::check(spread_map(0, 0)).ok());
}

TEST_CASE("tail_map: golden rows") {
  CHECK(sources(tail_map(6, 2)) == std::vector{0, 1, 2, 3, 3, 3});
  CHECK(sources(tail_map(6, 0)) == std::vector{0, 1, 2, 3, 4, 5});
  CHECK(sources(tail_map(6, 5)) == std::vector{0, 0, 0, 0, 0, 0});
}

TEST_CASE("tail_map: the layers below the tail lead") {
  for (std::int32_t layers = 1; layers <= deepest; ++layers)
    for (std::int32_t tail = 0; tail < layers; ++tail) {
      CAPTURE(layers);
      CAPTURE(tail);
      CHECK(is_nearest_leader_map(tail_map(layers, tail), layers, first_layers(layers - tail)));
    }
}

TEST_CASE("tail_map: somebody must be left to be read") {
  CHECK(strata::check(tail_map(8, 8)) == status{errc::value_too_large, {}, 8, 7});
  CHECK(strata::check(tail_map(8, int_max)) == status{errc::value_too_large, {}, int_max, 7});
  CHECK(strata::check(tail_map(8, -1)).code == errc::value_too_small);
  CHECK(strata::check(tail_map(8, int_min)).value == int_min);
  CHECK_FALSE(strata::check(tail_map{}).ok());
}

TEST_CASE("every map is refused as a whole when it is too deep") {
  status const too_many{errc::too_many_layers, {}, 257, 256};
  CHECK(strata::check(identity_map(257)) == too_many);
  CHECK(strata::check(grouped_map(257, 4)) == too_many);
  CHECK(strata::check(spread_map(257, 4)) == too_many);
  CHECK(strata::check(tail_map(257, 4)) == too_many);
}

TEST_CASE("every map works at the greatest depth") {
  CHECK(strata::num_leaders(identity_map(256)) == 256);
  CHECK(strata::check(grouped_map(256, 5)).ok());
  CHECK(strata::num_leaders(grouped_map(256, 5)) == 52);
  CHECK(strata::check(spread_map(256, 77)).ok());
  CHECK(strata::num_leaders(spread_map(256, 77)) == 77);
  CHECK(strata::check(tail_map(256, 100)).ok());
  CHECK(strata::num_leaders(tail_map(256, 100)) == 156);
}
