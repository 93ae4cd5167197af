// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Leaders chosen for a budget, beside all that could have been chosen.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <strata/map/planner.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::layer_id;

namespace {

struct planner_case {
  strata::kv_classes classes;
  std::vector<std::int64_t> bytes;
  std::vector<double> sensitivity;
  std::vector<std::int64_t> stage_budgets;
  strata::planner_goals goals;
};

strata::layer_kind any_kind(std::mt19937& random) {
  strata::layer_kind kind;
  kind.kv.kv_heads = random() % 3 == 0 ? 2 : 1;
  if (random() % 4 == 0) kind.window = 64;
  kind.has_kv = random() % 8 != 0;
  return kind;
}

planner_case any_case(std::uint32_t seed, std::int32_t layers, bool uniform) {
  std::mt19937 random(seed);
  planner_case c;
  std::vector<strata::layer_kind> kinds;
  auto const stages = random() % 3 == 0 ? 2 : 1;
  for (std::int32_t l = 0; l < layers; ++l) {
    auto kind = uniform ? strata::layer_kind{} : any_kind(random);
    kind.stage = l * stages / layers;
    kinds.push_back(kind);
    c.bytes.push_back(static_cast<std::int64_t>(kind.has_kv ? random() % 5 + 1 : 0));
    c.sensitivity.push_back(static_cast<double>(random() % 100) / 100);
  }
  c.classes = *strata::kv_classes::make(kinds);
  c.goals.budget = random() % 5 == 0 ? strata::planner_goals::unlimited
                                     : static_cast<std::int64_t>(random() % 30);
  c.goals.distance_weight = static_cast<double>(random() % 3);
  c.goals.prefill_weight = static_cast<double>(random() % 3);
  c.goals.sensitivity_weight = static_cast<double>(random() % 2);
  if (random() % 2 == 0)
    for (int stage = 0; stage < stages; ++stage)
      c.stage_budgets.push_back(static_cast<std::int64_t>(random() % 15));
  return c;
}

/// A set's cost by hand; infinite where it is no choice.
double cost_of(std::uint32_t set, planner_case const& c) {
  auto const layers = c.classes.num_layers();
  double distance = 0, sensitivity = 0;
  std::int64_t total = 0;
  std::vector<std::int64_t> of_stage(c.stage_budgets.size());
  std::int32_t through = 0, with_kv = 0;
  for (std::int32_t l = 0; l < layers; ++l) {
    auto const& kind = c.classes[{l}];
    auto const at = static_cast<std::size_t>(l);
    if (!kind.has_kv) {
      if ((set >> l & 1) != 0) return INFINITY;  // counted once
      through = l + 1;
      continue;
    }
    ++with_kv;
    if ((set >> l & 1) != 0) {
      total += c.bytes[at];
      if (!of_stage.empty()) of_stage[static_cast<std::size_t>(kind.stage)] += c.bytes[at];
      through = l;
      continue;
    }
    auto source = l - 1;
    for (; source >= 0; --source) {
      auto const& s = c.classes[{source}];
      if ((set >> source & 1) != 0 && s.has_kv && s.kv == kind.kv && s.stage == kind.stage &&
          s.window >= kind.window)
        break;
    }
    if (source < 0) return INFINITY;
    distance += l - source;
    sensitivity += c.sensitivity[at];
  }
  if (total > c.goals.budget) return INFINITY;
  for (std::size_t s = 0; s < of_stage.size(); ++s)
    if (of_stage[s] > c.stage_budgets[s]) return INFINITY;
  auto const mean = with_kv == 0 ? 0 : distance / with_kv / layers;
  return c.goals.distance_weight * mean + c.goals.prefill_weight * through / layers +
         c.goals.sensitivity_weight * sensitivity;
}

/// Spans of a case, where it lies now.
strata::planner_goals goals_of(planner_case const& c) {
  auto goals = c.goals;
  goals.sensitivity = c.sensitivity;
  goals.stage_budgets = c.stage_budgets;
  return goals;
}

}  // namespace

TEST_CASE("no choice that fits costs less") {
  std::int32_t chosen = 0, refused = 0;
  for (std::uint32_t seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    auto const layers = static_cast<std::int32_t>(seed % 10 + 1);
    auto const c = any_case(seed, layers, seed % 4 == 0);
    double least = INFINITY;
    for (std::uint32_t set = 0; set < 1U << layers; ++set) least = std::min(least, cost_of(set, c));
    auto const choice = strata::choose_leaders(c.classes, c.bytes, goals_of(c));
    REQUIRE(choice.ok() == std::isfinite(least));
    if (!choice.ok()) {
      CHECK(choice.state().code == errc::budget_too_small);
      CHECK(choice.state().value > choice.state().bound);
      ++refused;
      continue;
    }
    ++chosen;
    CHECK(choice->exact);
    CHECK(choice->cost == doctest::Approx(least).epsilon(1e-12));
    std::uint32_t set = 0;
    for (std::int32_t l = 0; l < layers; ++l) {
      set |= static_cast<std::uint32_t>(choice->leaders.contains({l})) << l;
      CHECK((choice->map.source({l}).index == l) ==
            (choice->leaders.contains({l}) || !c.classes[{l}].has_kv));
    }
    CHECK(cost_of(set, c) == doctest::Approx(least).epsilon(1e-12));
    CHECK(make_plan(choice->map, c.classes).ok());
  }
  CHECK(chosen > 100);
  CHECK(refused > 50);
}

TEST_CASE("the smallest budget that is not refused is the one that a refusal names") {
  for (std::uint32_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    auto c = any_case(seed, 9, false);
    c.stage_budgets.clear();
    c.goals.budget = 0;
    auto const refused = strata::choose_leaders(c.classes, c.bytes, goals_of(c)).state();
    if (refused.ok()) continue;  // no layer has K/V
    c.goals.budget = refused.value;
    CHECK(strata::choose_leaders(c.classes, c.bytes, goals_of(c)).ok());
    c.goals.budget = refused.value - 1;
    CHECK(!strata::choose_leaders(c.classes, c.bytes, goals_of(c)).ok());
  }
}

TEST_CASE("of one class the choice is the best at any depth, and spreads its leaders") {
  auto const classes = strata::kv_classes::uniform(36);
  std::vector<std::int64_t> const bytes(36, 10);
  auto const by_distance = strata::choose_leaders(classes, bytes, {.budget = 90});
  REQUIRE(by_distance.ok());
  CHECK(by_distance->exact);
  CHECK(by_distance->bytes == 90);
  // Nine groups of four: the distances of each are 0, 1, 2, 3.
  CHECK(by_distance->distance == doctest::Approx(1.5 / 36));
  CHECK(by_distance->prefill == doctest::Approx(32.0 / 36));
  // A prompt is cheapest where all leaders are at the bottom.
  auto const by_prefill = strata::choose_leaders(
      classes, bytes, {.budget = 90, .distance_weight = 1e-3, .prefill_weight = 1});
  REQUIRE(by_prefill.ok());
  CHECK(by_prefill->prefill == doctest::Approx(0));
  // What is measured decides: layers 5 and 20 must not follow.
  std::vector<double> sensitivity(36, .01);
  sensitivity[5] = sensitivity[20] = 1;
  strata::planner_goals goals{.budget = 30, .distance_weight = 0};
  goals.sensitivity = sensitivity;
  auto const measured = strata::choose_leaders(classes, bytes, goals);
  REQUIRE(measured.ok());
  CHECK(measured->leaders.contains({0}));
  CHECK(measured->leaders.contains({5}));
  CHECK(measured->leaders.contains({20}));
  CHECK(measured->bytes == 30);
}

TEST_CASE(
    "a narrow search finds a choice where there is one, and says that it may not be the best") {
  std::int32_t inexact = 0;
  for (std::uint32_t seed = 1; seed <= 100; ++seed) {
    CAPTURE(seed);
    auto c = any_case(seed, 12, false);
    auto goals = goals_of(c);
    auto const best = strata::choose_leaders(c.classes, c.bytes, goals);
    goals.width = 2;
    auto const narrow = strata::choose_leaders(c.classes, c.bytes, goals);
    // Two stages with budgets of their own may be missed; nothing else.
    if (goals.stage_budgets.empty()) REQUIRE(best.ok() == narrow.ok());
    if (!best.ok() || !narrow.ok()) continue;
    CHECK(narrow->cost >= best->cost - 1e-12);
    if (narrow->exact) CHECK(narrow->cost == doctest::Approx(best->cost).epsilon(1e-12));
    inexact += !narrow->exact;
  }
  CHECK(inexact > 20);
}

TEST_CASE("a score of one's own is improved on") {
  auto const classes = strata::kv_classes::uniform(10);
  std::vector<std::int64_t> const bytes(10, 1);
  // Wants 3 and 7 to lead, and nothing beyond what must.
  auto const score = [](strata::leader_choice const& choice) {
    return 10.0 - 5 * choice.leaders.contains({3}) - 4 * choice.leaders.contains({7}) +
           static_cast<double>(choice.bytes);
  };
  auto const choice = strata::choose_leaders(classes, bytes, {.budget = 4}, score);
  REQUIRE(choice.ok());
  CHECK(choice->bytes == 3);
  CHECK(choice->leaders.contains({3}));
  CHECK(choice->leaders.contains({7}));
  CHECK(choice->cost == 4);
  CHECK(!choice->exact);
  auto const tight = strata::choose_leaders(classes, bytes, {.budget = 2}, score);
  REQUIRE(tight.ok());
  CHECK(tight->leaders.contains({3}));
  CHECK(!tight->leaders.contains({7}));
}

TEST_CASE("a planner's questions are checked") {
  auto const classes = strata::kv_classes::uniform(4);
  std::vector<std::int64_t> bytes(4, 1);
  std::vector<double> sensitivity(3);
  strata::planner_goals goals;
  auto const code = [&] { return strata::choose_leaders(classes, bytes, goals).state(); };
  CHECK(code().ok());
  goals.sensitivity = sensitivity;
  CHECK(code() == strata::status{errc::layer_count_mismatch, strata::no_layer, 3, 4});
  sensitivity = {0, 0, std::numeric_limits<double>::quiet_NaN(), 0};
  goals.sensitivity = sensitivity;
  CHECK(code() == strata::status{errc::bad_weight, {2}});
  goals.sensitivity = {};
  goals.prefill_weight = -1;
  CHECK(code().code == errc::bad_weight);
  goals.prefill_weight = 0;
  goals.width = 0;
  CHECK(code().code == errc::value_too_small);
  goals.width = 1;
  CHECK(code().ok());
  bytes[3] = std::numeric_limits<std::int64_t>::max();
  CHECK(code() == strata::status{errc::size_overflow, {3}, bytes[3], 1});
  bytes = {1, 1, 1};
  CHECK(code().code == errc::layer_count_mismatch);
  strata::layer_mask first;
  first.insert({0});
  CHECK(strata::weigh_leaders(first, classes, bytes, goals).state().code ==
        errc::layer_count_mismatch);
}

TEST_CASE("layers of a window take the bytes of a window") {
  strata::layer_kind global, local, linear;
  global.kv = local.kv = {.kv_heads = 8, .k_dim = 128, .v_dim = 128};
  local.window = 1024;
  linear.has_kv = false;
  strata::layer_kind const layers[] = {local, global, linear};
  auto const classes = *strata::kv_classes::make(layers);
  std::int64_t bytes[3] = {};
  REQUIRE(strata::layer_cache_bytes<strata::bf16_codec>(classes, 8192, 3, bytes).ok());
  CHECK(bytes[0] == 1024LL * 3 * 4096);
  CHECK(bytes[1] == 8192LL * 3 * 4096);
  CHECK(bytes[2] == 0);
  CHECK(strata::layer_cache_bytes<strata::bf16_codec>(classes, 8192, 3, std::span(bytes).first(2))
            .code == errc::layer_count_mismatch);
}
