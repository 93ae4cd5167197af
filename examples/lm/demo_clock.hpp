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
  double live_table = 0;       ///< scoring live_eval_bytes with all models and strategies
  double per_scored_byte = 0;  ///< the same, of one byte
};

/// How the time is spent.
struct demo_schedule {
  std::int64_t steps = 0;
  std::int64_t eval_bytes = 0;   ///< of the last table; 0: all
  std::int32_t live_tables = 0;  ///< evenly spread over the steps
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

/// Times a few steps of every model and one evaluation, with models that are thrown away. About
/// three rounds, one if they are slow.
inline demo_costs estimate_costs(std::vector<arm_spec> const& specs, training_options options,
                                 corpus const& text_read, strata::thread_pool& pool) {
  constexpr double patience = 4;
  options.steps = 1 << 20;
  options.text.clear();
  auto timed = specs;
  std::erase_if(timed, [](auto const& s) { return s.branches; });
  demo_costs costs;
  experiment trial(timed, options, text_read, pool);
  stopwatch const all;
  trial.step();  // touches all memory for the first time
  auto const first = all.seconds();
  int rounds = 0;
  while (rounds < 3 && (rounds == 0 || all.seconds() + first < patience)) {
    trial.step();
    ++rounds;
  }
  costs.round = (all.seconds() - first) / rounds;
  auto const plain_step = trial.arms().front().train_seconds() / (rounds + 1);
  double scoring = 0;
  for (auto const& s : specs) {
    costs.round += s.branches ? plain_step / 2 : 0;
    scoring += relative_scoring_cost(s.model, specs.front().model);
  }
  auto const& plain = trial.arms().front();
  auto const full = resolve_strategy("full", plain.spec().model);
  auto const windows = windows_of(first_bytes(text_read.scored(), 2048), options.model.context,
                                  options.model.context / 2);
  measurement m(plain.weights(), pool, full, {cache_codec::f32, options.model.context});
  stopwatch const watch;
  auto const scored = m.loss(windows);
  costs.per_scored_byte = watch.seconds() / static_cast<double>(scored.tokens) * scoring;
  costs.live_table = costs.per_scored_byte * static_cast<double>(live_eval_bytes);
  return costs;
}

/// Fits steps and tables into `seconds`. With `steps` given, that many, however long they take.
inline demo_schedule fit(demo_costs const& costs, double seconds, std::int64_t steps,
                         std::int64_t eval_bytes, std::int64_t scored_bytes) {
  constexpr double output_seconds = 6;    // rates of serving, samples, plots
  constexpr double largest_share = 0.12;  // of the time, for each kind of table
  constexpr double caution = 0.94;        // machines slow down
  demo_schedule s;
  s.eval_bytes = eval_bytes;
  if (eval_bytes < 0) {
    auto const affordable = largest_share * seconds / costs.per_scored_byte;
    auto const whole_parts = static_cast<std::int64_t>(affordable / live_eval_bytes);
    s.eval_bytes = std::clamp(whole_parts * live_eval_bytes, live_eval_bytes, last_eval_bytes);
  }
  auto const bytes = s.eval_bytes == 0 ? scored_bytes : std::min(s.eval_bytes, scored_bytes);
  s.reserve = output_seconds + costs.per_scored_byte * static_cast<double>(bytes);
  auto const tables = largest_share * seconds / costs.live_table;
  s.live_tables = std::clamp(static_cast<std::int32_t>(tables), 2, 12);
  auto const left = (seconds - s.reserve) * caution - s.live_tables * costs.live_table;
  s.steps =
      steps > 0 ? steps : std::max(static_cast<std::int64_t>(left / costs.round), std::int64_t{2});
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
