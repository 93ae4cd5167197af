// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How the demo divides its minutes.
#include "demo_clock.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace {

constexpr std::int64_t scored_bytes = 200000;

/// Machines from fast to hopeless.
std::vector<lm::demo_costs> machines() {
  std::vector<lm::demo_costs> list;
  for (double const round : {0.001, 0.05, 0.3, 4.0})
    for (double const per_byte : {1e-6, 1e-4, 2e-3}) list.push_back({round, per_byte});
  return list;
}

double needed(lm::demo_schedule const& s, lm::demo_costs const& costs) {
  auto const bytes = s.live_tables * s.live_bytes;
  return static_cast<double>(s.steps) * costs.round +
         static_cast<double>(bytes) * costs.per_scored_byte + s.reserve;
}

}  // namespace

TEST_CASE("fit: training, tables and what follows stay within the time") {
  for (auto const& costs : machines())
    for (double const seconds : {12.0, 30.0, 90.0, 300.0, 3600.0, 604800.0}) {
      CAPTURE(costs.round);
      CAPTURE(costs.per_scored_byte);
      CAPTURE(seconds);
      auto const s = lm::fit(costs, seconds, 0, -1, scored_bytes);
      CHECK(s.steps >= 2);
      CHECK(s.live_tables >= 2);
      CHECK(s.live_tables <= 12);
      CHECK(s.eval_bytes >= lm::live_eval_bytes);
      CHECK(s.eval_bytes <= lm::last_eval_bytes);
      CHECK(s.eval_bytes % lm::live_eval_bytes == 0);
      CHECK(s.reserve > costs.per_scored_byte * static_cast<double>(s.eval_bytes));
      if (s.steps > 2) CHECK(needed(s, costs) <= seconds);
      // Where there is time, most of it trains.
      if (seconds > 60 && s.live_table < 0.01 * seconds && s.steps < 1 << 24)
        CHECK(static_cast<double>(s.steps + 1) * costs.round > 0.5 * seconds);
    }
}

TEST_CASE("fit: twice the time or twice the speed never means fewer steps or less text") {
  for (auto const& costs : machines())
    for (double seconds = 12; seconds < 4000; seconds *= 2) {
      auto const s = lm::fit(costs, seconds, 0, -1, scored_bytes);
      auto const longer = lm::fit(costs, 2 * seconds, 0, -1, scored_bytes);
      CHECK(longer.steps >= s.steps);
      CHECK(longer.eval_bytes >= s.eval_bytes);
      CHECK(longer.live_tables >= s.live_tables);
      auto faster = costs;
      faster.round /= 2;
      CHECK(lm::fit(faster, seconds, 0, -1, scored_bytes).steps >= s.steps);
    }
}

TEST_CASE("fit: steps and text that are given stand, whatever they cost") {
  lm::demo_costs const costs{10, 1};
  auto const s = lm::fit(costs, 30, 1200, 5000, scored_bytes);
  CHECK(s.steps == 1200);
  CHECK(s.eval_bytes == 5000);
  CHECK(s.reserve > 5000);
  CHECK(s.live_bytes == lm::live_eval_bytes);
  CHECK(lm::fit(costs, 30, 1200, 500, scored_bytes).live_bytes == 500);  // no more than at the end
  auto const all = lm::fit(costs, 30, 1200, 0, scored_bytes);
  CHECK(all.eval_bytes == 0);  // all of it
  CHECK(all.reserve > static_cast<double>(scored_bytes));
  CHECK(lm::fit(costs, 30, 1, 1 << 30, 3000).reserve < 3100);  // no more than there is
}

TEST_CASE("fit: costs that an interruption left without a measurement do no harm") {
  for (double const cost : {0.0, 1e-12, std::numeric_limits<double>::infinity()}) {
    CAPTURE(cost);
    auto const s = lm::fit({cost, cost}, 30, 0, -1, scored_bytes);
    CHECK(s.steps >= 2);
    CHECK(s.live_tables >= 2);
    CHECK(s.live_tables <= 12);
    CHECK(s.eval_bytes >= lm::live_eval_bytes);
    CHECK(s.eval_bytes <= lm::last_eval_bytes);
  }
}
