// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every layer of every sampler draws from exactly the distribution that its definition states:
// 20000 draws each with a fixed seed, judged by chi-square.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "support/maps.hpp"
#include "support/models.hpp"
#include "support/oracle.hpp"
#include "support/print.hpp"
#include "support/samplers.hpp"
#include "support/statistics.hpp"

namespace {

using support::model;
using weights = std::vector<double>;  // of the candidates, in their order
using layer_list = std::vector<std::int32_t>;

constexpr std::uint64_t draws_per_layer = 20000;

/// Keys that differ in their step.
strata::draw_key key_of_step(std::uint64_t draw) { return {20, draw, 0, 0, 0}; }

/// The first layer whose sources do not fit expected(candidates), or -1. K is counted. key_of: from
/// the number of a draw to its key.
template <class Sampler, class Expected, class KeyOf = decltype(&key_of_step)>
std::int32_t first_misfit(Sampler const& sampler, model const& m, Expected expected,
                          KeyOf key_of = key_of_step) {
  auto const layers = static_cast<std::size_t>(m.num_layers());
  std::vector<std::vector<std::int64_t>> counts(layers, std::vector<std::int64_t>(layers));
  auto const classes = m.classes();
  for (std::uint64_t draw = 0; draw < draws_per_layer; ++draw) {
    auto const plan = strata::make_plan(sampler, classes, key_of(draw));
    REQUIRE(plan.ok());
    for (std::size_t l = 0; l < layers; ++l)
      if (auto const source = plan->layers[l].k.source; source.valid())
        ++counts[l][static_cast<std::size_t>(source.index)];
  }
  for (std::int32_t l = 0; l < m.num_layers(); ++l) {
    auto const candidates = support::candidates_of(m, l);
    if (candidates.empty()) continue;
    weights const of_candidate = expected(candidates);
    weights probabilities(layers);
    for (std::size_t i = 0; i < candidates.size(); ++i)
      probabilities[static_cast<std::size_t>(candidates[i])] = of_candidate[i];
    if (!support::fits(counts[static_cast<std::size_t>(l)], probabilities)) return l;
  }
  return -1;
}

/// Both a model of equal layers and one with everything in it.
template <class Make, class Expected>
void check_distribution(Make make, Expected expected) {
  for (auto const& m : {support::uniform_model(9), support::crazy_quilt()}) {
    CAPTURE(m.name);
    CHECK(first_misfit(make(m), m, [&](layer_list const& c) { return expected(m, c); }) == -1);
  }
}

/// Itself with `self`, else one of the nearest `reach` candidates before it, each equally likely.
weights self_or_before(layer_list const& candidates, double self, std::size_t reach) {
  weights w(candidates.size());
  auto const preceding = candidates.size() - 1;
  if (preceding == 0) return {1};
  auto const eligible = std::min(reach, preceding);
  for (std::size_t i = preceding - eligible; i < preceding; ++i)
    w[i] = (1 - self) / static_cast<double>(eligible);
  w[preceding] = self;
  return w;
}

/// All weight of `share` on one layer.
void add_at(weights& w, layer_list const& candidates, std::int32_t layer, double share) {
  for (std::size_t i = 0; i < candidates.size(); ++i)
    if (candidates[i] == layer) w[i] += share;
}

/// Itself with `self`, else its source under the map.
template <class Map>
weights self_or_source(layer_list const& candidates, double self, Map const& map) {
  weights w(candidates.size());
  add_at(w, candidates, candidates.back(), self);
  add_at(w, candidates, map.source({candidates.back()}).index, 1 - self);
  return w;
}

}  // namespace

TEST_CASE("random_previous: itself, or any candidate before it") {
  for (auto const self : {0.0, 0.6})
    check_distribution(
        [&](model const&) { return strata::random_previous(self); },
        [&](model const&, layer_list const& c) { return self_or_before(c, self, c.size()); });
}

TEST_CASE("a schedule over depth gives each layer its own probability") {
  auto const m = support::uniform_model(9);
  auto const schedule = strata::probability_schedule::over_depth(1.0, 0.2, 9);
  auto const self = [](layer_list const& c) { return 1 - 0.1 * c.back(); };
  CHECK(first_misfit(strata::random_previous(schedule), m, [&](layer_list const& c) {
          return self_or_before(c, self(c), c.size());
        }) == -1);
  CHECK(first_misfit(strata::random_window<3>(schedule), m,
                     [&](layer_list const& c) { return self_or_before(c, self(c), 3); }) == -1);
  auto const map = support::map_within_classes(m, 3);
  CHECK(first_misfit(strata::coin_to_map(map, schedule), m,
                     [&](layer_list const& c) { return self_or_source(c, self(c), map); }) == -1);
}

// A step belongs to one probability, so frequencies are those of many micro-batches of that step.
TEST_CASE("a schedule over steps gives each step its own probability") {
  auto const m = support::uniform_model(5);
  auto const schedule = strata::probability_schedule::over_steps(0.9, 0.1, 100, 200);
  auto const map = support::map_within_classes(m, 3);
  struct moment {
    std::uint64_t step;
    double self;
  };
  for (auto const& at :
       {moment{0, 0.9}, {100, 0.9}, {125, 0.7}, {150, 0.5}, {199, 0.108}, {200, 0.1}}) {
    CAPTURE(at.step);
    auto const self = at.self;
    auto const fits = [&](auto const& s, auto expected) {
      auto const key = [&](std::uint64_t draw) {
        return strata::draw_key{24, at.step, static_cast<std::uint32_t>(draw), 0, 0};
      };
      return first_misfit(s, m, expected, key) == -1;
    };
    CHECK(fits(strata::random_previous(schedule),
               [&](layer_list const& c) { return self_or_before(c, self, c.size()); }));
    CHECK(fits(strata::random_window<3>(schedule),
               [&](layer_list const& c) { return self_or_before(c, self, 3); }));
    CHECK(fits(strata::coin_to_map(map, schedule),
               [&](layer_list const& c) { return self_or_source(c, self, map); }));
  }
}

TEST_CASE("random_window: itself, or one of the nearest candidates before it") {
  check_distribution([](model const&) { return strata::random_window<1>(0.3); },
                     [](model const&, layer_list const& c) { return self_or_before(c, 0.3, 1); });
  check_distribution([](model const&) { return strata::random_window<3>(0.3); },
                     [](model const&, layer_list const& c) { return self_or_before(c, 0.3, 3); });
  check_distribution([](model const&) { return strata::random_window<100>(0.5); },
                     [](model const&, layer_list const& c) { return self_or_before(c, 0.5, 100); });
}

TEST_CASE("coin_to_map: itself, or its source under the map") {
  check_distribution(
      [](model const& m) { return strata::coin_to_map(support::map_within_classes(m, 3), 0.3); },
      [](model const& m, layer_list const& c) {
        return self_or_source(c, 0.3, support::map_within_classes(m, 3));
      });
}

TEST_CASE("random_leader_set: a mixture over retentions r of r (1 - r)^k, k layers down") {
  weights const retentions{1, 0.5, 0.25, 0.1};
  check_distribution([&](model const&) { return strata::random_leader_set(retentions); },
                     [&](model const&, layer_list const& c) {
                       weights w(c.size());
                       for (auto const r : retentions)
                         for (std::size_t k = 0; k < c.size(); ++k) {
                           bool const first = k + 1 == c.size();  // leads in any case
                           w[c.size() - 1 - k] +=
                               (first ? 1 : r) * std::pow(1 - r, static_cast<double>(k)) / 4;
                         }
                       return w;
                     });
}

TEST_CASE("strategy_mixture: each map equally often, one named twice twice as often") {
  auto const maps = [](model const& m) {
    return std::vector{support::map_within_classes(m, 1), support::map_within_classes(m, 4),
                       support::map_within_classes(m, 2), support::map_within_classes(m, 4)};
  };
  check_distribution([&](model const& m) { return strata::strategy_mixture(maps(m)); },
                     [&](model const& m, layer_list const& c) {
                       weights w(c.size());
                       for (auto const& map : maps(m))
                         add_at(w, c, map.source({c.back()}).index, 0.25);
                       return w;
                     });
}

TEST_CASE("self_only and fixed_route draw nothing") {
  check_distribution([](model const&) { return strata::self_only{}; },
                     [](model const&, layer_list const& c) { return self_or_before(c, 1, 0); });
  check_distribution(
      [](model const& m) { return strata::fixed_route(support::map_within_classes(m, 2)); },
      [](model const& m, layer_list const& c) {
        weights w(c.size());
        add_at(w, c, support::map_within_classes(m, 2).source({c.back()}).index, 1);
        return w;
      });
}

TEST_CASE("random_leader_set: the layers of a pass agree on one set, which has the right size") {
  auto const classes = strata::kv_classes::uniform(9);
  strata::random_leader_set const sampler{0.5, 0.25};
  std::vector<std::int64_t> counts(10);
  for (std::uint64_t step = 0; step < draws_per_layer; ++step) {
    auto const plan = strata::make_plan(sampler, classes, {21, step, 0, 0, 0});
    auto const sources = support::k_sources(*plan);
    std::set<std::int32_t> const leaders(sources.begin(), sources.end());
    REQUIRE(sources == support::nearest_leaders(9, leaders));
    ++counts[leaders.size()];
  }
  // Layer 0 leads; each of the other eight does with probability r.
  weights expected(10);
  double choose = 1;
  for (int n = 0; n <= 8; choose = choose * (8 - n) / (n + 1), ++n)
    for (auto const r : {0.5, 0.25})
      expected[static_cast<std::size_t>(n) + 1] +=
          choose * std::pow(r, n) * std::pow(1 - r, 8 - n) / 2;
  CHECK(support::fits(counts, expected));
}

TEST_CASE("strategy_mixture: all layers of a pass follow one map") {
  auto const m = support::uniform_model(9);
  auto const sampler = support::sampler_for<strata::strategy_mixture>::make(m);
  for (std::uint64_t step = 0; step < 500; ++step) {
    auto const plan = *strata::make_plan(sampler, m.classes(), {22, step, 0, 0, 0});
    bool const known = plan == *strata::make_plan(support::map_within_classes(m, 1)) ||
                       plan == *strata::make_plan(support::map_within_classes(m, 2)) ||
                       plan == *strata::make_plan(support::map_within_classes(m, 3));
    REQUIRE(known);
  }
}

TEST_CASE("any_sampler draws as the sampler that it holds") {
  auto const m = support::crazy_quilt();
  auto const agrees = [&](auto const& sampler) {
    for (std::uint64_t step = 0; step < 50; ++step) {
      strata::draw_key const key{23, step, 0, 0, 0};
      auto const held = strata::make_plan(strata::any_sampler(sampler), m.classes(), key);
      if (!(*held == *strata::make_plan(sampler, m.classes(), key))) return false;
    }
    return true;
  };
  CHECK(agrees(strata::self_only{}));
  CHECK(agrees(strata::random_previous(0.3)));
  CHECK(agrees(strata::random_leader_set{0.5}));
  CHECK(agrees(support::sampler_for<strata::fixed_route<strata::table_map>>::make(m)));
  CHECK(agrees(support::sampler_for<strata::coin_to_map<strata::table_map>>::make(m)));
  CHECK(agrees(support::sampler_for<strata::strategy_mixture>::make(m)));
  CHECK(strata::make_plan(strata::any_sampler(strata::random_previous(2.0)), m.classes(), {})
            .state()
            .code == strata::errc::not_a_probability);
}
