// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How the demo spends its minutes: how many steps fit, how much text the tables score, how often
// the live table is renewed. Everything is estimated from a few steps and a short evaluation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "demo_arms.hpp"
#include "measure.hpp"
#include "progress.hpp"
#include "text_coder.hpp"

namespace lm {

/// Strategies of the demo's tables; the last one keeps one leader in every model.
inline std::vector<std::string> const& demo_strategies() {
  static std::vector<std::string> const all = {"full", "every:2", "every:4", "spread:1"};
  return all;
}

inline constexpr std::int64_t live_eval_bytes = 4096;
inline constexpr std::int64_t last_eval_bytes = 32768;

/// What the models cost, in seconds.
struct demo_costs {
  double round = 0;            ///< a step of every model, the branching one at half
  double per_scored_byte = 0;  ///< scoring one with all models and strategies
};

/// How the time is spent.
struct demo_schedule {
  std::int64_t steps = 0;
  std::int64_t eval_bytes = 0;   ///< of the last table; 0: all
  std::int64_t live_bytes = 0;   ///< of the live tables, no more than of the last one
  std::int32_t live_tables = 0;  ///< evenly spread over the steps
  double live_table = 0;         ///< seconds for one
  double reserve = 0;            ///< seconds that what follows the training takes
};

/// Time that scoring one byte takes, relative to the plain model at full: as many layers less, and
/// above the tail only the scored half of each window.
inline double relative_scoring_cost(model_config const& config, model_config const& whole) {
  double sum = 0;
  for (auto const& given : demo_strategies())
    sum += 1 - resolve_strategy(given, config).skipped_fraction() / 2;
  return sum * config.layers / whole.layers;
}

/// Times a few steps of every model and one evaluation, with models that are thrown away: three
/// rounds after a first one that touches all memory, fewer where they are slow. A machine that
/// takes seconds for the first is timed by that alone, a little too slow, rather than keep the user
/// waiting for the announcement.
inline demo_costs estimate_costs(std::vector<arm_spec> const& specs, training_options options,
                                 corpus const& text_read, strata::thread_pool& pool) {
  constexpr double patience = 5;
  options.steps = 1 << 20;
  options.text.clear();
  auto timed = specs;
  std::erase_if(timed, [](auto const& s) { return s.branches; });
  demo_costs costs;
  stopwatch const all;
  experiment trial(timed, options, text_read, pool);
  stopwatch const steps;
  trial.step();
  auto const first = steps.seconds();
  int rounds = 0;
  for (; rounds < 3 && all.seconds() + first < patience; ++rounds) trial.step();
  costs.round = rounds == 0 ? first : (steps.seconds() - first) / rounds;
  auto const plain_step = trial.arms().front().train_seconds() / (rounds + 1);
  double scoring = 0;
  for (auto const& s : specs) {
    costs.round += s.branches ? plain_step / 2 : 0;
    scoring += relative_scoring_cost(s.model, specs.front().model);
  }
  auto const& plain = trial.arms().front();
  auto const full = resolve_strategy("full", plain.spec().model);
  token_text const tokens_read(first_of(text_read.scored(), first < patience ? 2048 : 512),
                               text_coder());
  auto const windows =
      windows_of(tokens_read.blocks(), options.model.context, options.model.context / 2);
  cpu_place place(plain.weights(), pool);
  measurement m(place, full, {cache_codec::f32, options.model.context});
  stopwatch const watch;
  auto const scored = m.loss(windows);
  auto const tokens = std::max<double>(static_cast<double>(scored.tokens), 1);  // 0: interrupted
  costs.per_scored_byte = watch.seconds() / tokens * scoring;
  return costs;
}

/// Fits steps and tables into `seconds`. With `steps` given, that many, however long they take.
inline demo_schedule fit(demo_costs const& costs, double seconds, std::int64_t steps,
                         std::int64_t eval_bytes, std::int64_t scored_bytes) {
  constexpr double output_seconds = 6;    // rates of serving, samples, plots
  constexpr double largest_share = 0.12;  // of the time, for each kind of table
  constexpr double caution = 0.94;        // machines slow down
  constexpr double most_steps = 1 << 24;
  demo_schedule s;
  s.eval_bytes = eval_bytes;
  if (eval_bytes < 0) {
    constexpr auto most_parts = static_cast<double>(last_eval_bytes / live_eval_bytes);
    auto const parts = largest_share * seconds / costs.per_scored_byte / live_eval_bytes;
    s.eval_bytes = static_cast<std::int64_t>(std::clamp(parts, 1.0, most_parts)) * live_eval_bytes;
  }
  auto const bytes = s.eval_bytes == 0 ? scored_bytes : std::min(s.eval_bytes, scored_bytes);
  s.reserve = output_seconds + costs.per_scored_byte * static_cast<double>(bytes);
  s.live_bytes = bytes == 0 ? live_eval_bytes : std::min(live_eval_bytes, bytes);
  s.live_table = costs.per_scored_byte * static_cast<double>(s.live_bytes);
  auto const tables = largest_share * seconds / s.live_table;
  s.live_tables = static_cast<std::int32_t>(std::clamp(tables, 2.0, 12.0));
  auto const left = (seconds - s.reserve) * caution - s.live_tables * s.live_table;
  auto const affordable = left > 0 ? std::clamp(left / costs.round, 2.0, most_steps) : 2.0;
  s.steps = steps > 0 ? steps : static_cast<std::int64_t>(affordable);
  return s;
}

/// "14:05:30", so many seconds from now.
inline std::string time_of_day(double seconds_from_now) {
  auto const then = std::time(nullptr) + static_cast<std::time_t>(seconds_from_now + 0.5);
  std::tm parts = {};
  localtime_r(&then, &parts);
  return text("%02d:%02d:%02d", parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace lm
