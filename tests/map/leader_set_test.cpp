// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include <strata/map/leader_set.hpp>

#include "support/maps.hpp"
#include "support/models.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::layer_mask;
using strata::leader_set;
using strata::status;

static_assert(strata::layer_map<leader_set>);

namespace {

std::set<std::int32_t> random_layers(std::mt19937& bits, std::int32_t num_layers, unsigned one_in) {
  std::set<std::int32_t> layers;
  for (std::int32_t l = 0; l < num_layers; ++l)
    if (bits() % one_in == 0) layers.insert(l);
  return layers;
}

leader_set of(std::int32_t num_layers, std::set<std::int32_t> const& leaders) {
  return {num_layers, std::vector<std::int32_t>(leaders.begin(), leaders.end())};
}

}  // namespace

TEST_CASE("layer_mask agrees with a set") {
  std::mt19937 bits(1);
  for (auto const one_in : {1u, 2u, 5u, 60u, 300u}) {
    auto const members = random_layers(bits, strata::max_layers, one_in);
    layer_mask mask;
    for (auto const l : members) mask.insert({l});
    auto const nearest = support::nearest_leaders(strata::max_layers, members);
    CHECK(mask.size() == static_cast<std::int32_t>(members.size()));
    for (std::int32_t l = 0; l < strata::max_layers; ++l) {
      REQUIRE(mask.contains({l}) == members.contains(l));
      REQUIRE(mask.highest_up_to({l}).index == nearest[static_cast<std::size_t>(l)]);
    }
  }
}

TEST_CASE("layer_mask: inserting twice changes nothing") {
  layer_mask once, twice;
  CHECK(once == twice);
  once.insert({64});
  twice.insert({64});
  twice.insert({64});
  CHECK(once == twice);
  CHECK(twice.size() == 1);
  twice.insert({63});
  CHECK(once != twice);
  CHECK(layer_mask{}.size() == 0);
  CHECK(layer_mask{}.highest_up_to({255}) == strata::no_layer);
}

TEST_CASE("leader_set: the paper's golden case") {
  constexpr leader_set set(5, {0, 2});
  static_assert(strata::check(set).ok());
  CHECK(support::sources(set) == std::vector{0, 0, 2, 2, 2});
  CHECK(set.leaders().size() == 2);
  CHECK(set.leaders().contains({2}));
}

TEST_CASE("leader_set: eq. 3.2 for every set of a small model") {
  for (std::int32_t layers = 1; layers <= 8; ++layers)
    for (unsigned pattern = 0; pattern < 1u << layers; ++pattern) {
      std::set<std::int32_t> leaders;
      for (std::int32_t l = 0; l < layers; ++l)
        if (pattern >> l & 1) leaders.insert(l);
      auto const map = of(layers, leaders);
      CAPTURE(layers);
      CAPTURE(pattern);
      if (leaders.contains(0))
        CHECK(support::is_nearest_leader_map(map, layers, leaders));
      else
        CHECK(strata::check(map) == status{errc::no_leader_before, {0}, -1, 0});
    }
}

TEST_CASE("leader_set: eq. 3.2 for sets of deep models") {
  std::mt19937 bits(2);
  for (std::int32_t const layers : {63, 64, 65, 128, 200, 256})
    for (auto const one_in : {2u, 10u, 90u}) {
      auto leaders = random_layers(bits, layers, one_in);
      leaders.insert(0);
      CHECK(support::is_nearest_leader_map(of(layers, leaders), layers, leaders));
    }
}

TEST_CASE("leader_set: order and repetition do not matter") {
  CHECK(support::sources(leader_set(6, {4, 0, 4, 2})) ==
        support::sources(leader_set(6, {0, 2, 4})));
}

TEST_CASE("leader_set: a leader that the model does not have is named, the first one") {
  CHECK(strata::check(leader_set(5, {0, 5, 9})) == status{errc::layer_out_of_range, {5}, 5, 5});
  CHECK(strata::check(leader_set(5, {0, -2})) == status{errc::layer_out_of_range, {-2}, -2, 5});
  CHECK(strata::check(leader_set(300, {0, 256})) ==
        status{errc::layer_out_of_range, {256}, 256, 300});
  CHECK(strata::check(leader_set(300, {0, 255})).code == errc::too_many_layers);
  CHECK(strata::check(leader_set{}).code == errc::no_layers);
}

TEST_CASE("leader_set: where the lowest layers have no K/V, the first one that has must lead") {
  auto const classes = support::linear_hybrid(8).classes();
  CHECK(strata::check(leader_set(8, {3}), classes).ok());
  CHECK(strata::check(leader_set(8, {3, 7}), classes).ok());
  CHECK(strata::check(leader_set(8, {7}), classes) == status{errc::no_leader_before, {3}, -1, 0});
  CHECK(strata::check(leader_set(8, {0}), classes) == status{errc::source_without_kv, {3}, 0, 0});
}
