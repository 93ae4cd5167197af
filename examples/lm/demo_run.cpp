// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "demo.hpp"

namespace lm {

demo_run::demo_run(demo_options const& options, std::uint64_t seed, corpus const& text_read,
                   std::string text_name, strata::thread_pool& pool, stopwatch clock)
    : options_(options),
      text_(text_read),
      text_name_(std::move(text_name)),
      pool_(pool),
      clock_(clock),
      specs_(demo_arms(options.shape, options.also)),
      scored_(text_read.scored(), text_coder()) {
  training_.hold_out = text_read.hold_out();
  training_.seed = seed;
  training_.model = specs_.front().model;
}

std::vector<window> demo_run::windows(std::int64_t bytes) const {
  auto const context = training_.model.context;
  return windows_of(first_of(scored_.blocks(), bytes), context, context / 2);
}

demo_report demo_run::run() {
  announce();
  train();
  return score();
}

void demo_run::announce() {
  live_.show("timing a few steps ...\n");
  costs_ = estimate_costs(specs_, training_, text_, pool_);
  std::int64_t held_out = 0;
  for (auto const& block : text_.scored()) held_out += static_cast<std::int64_t>(block.size());
  schedule_ = fit(costs_, seconds_left(), options_.steps, options_.eval_bytes, held_out);
  training_.steps = schedule_.steps;
  bool const timed = options_.steps == 0;
  auto const needed = static_cast<double>(schedule_.steps) * costs_.round +
                      schedule_.live_tables * schedule_.live_table + schedule_.reserve;
  live_.clear();
  auto const words = announcement(specs_, training_, text_, text_name_, schedule_,
                                  timed ? seconds_left() : needed, timed);
  std::fputs(words.c_str(), stdout);
  std::fflush(stdout);
}

/// Whether training must end for the rest to fit; never where the steps were given.
bool demo_run::out_of_time() const {
  return options_.steps == 0 && seconds_left() < schedule_.reserve;
}

void demo_run::train() {
  experiment_ = std::make_unique<experiment>(specs_, training_, text_, pool_);
  training_clock_ = stopwatch();
  std::int32_t tables = 0;
  while (!experiment_->finished() && !interrupted() && !out_of_time()) {
    experiment_->step();
    auto const done = experiment_->steps_done();
    // Evenly over the steps, the first one within the first minute.
    bool const due = done * (schedule_.live_tables + 1) >= schedule_.steps * (tables + 1);
    bool const first = tables == 0 && clock_.seconds() > 40;
    bool const renew = (due || first) && !experiment_->finished();
    if (renew) renew_table();
    if (renew) ++tables;
    show(renew);
  }
  live_.keep();
  if (was_cut_short())
    std::printf("%s at step %lld of %lld.\n", interrupted() ? "Interrupted" : "Out of time",
                static_cast<long long>(experiment_->steps_done()),
                static_cast<long long>(schedule_.steps));
  if (interrupted()) schedule_.eval_bytes = schedule_.live_bytes;  // who interrupts is in a hurry
  begin_conclusion();
}

void demo_run::renew_table() {
  stopwatch const clock;
  auto const scored = windows(schedule_.live_bytes);
  live_losses fresh{experiment_->steps_done(), {}};
  for (auto const& a : experiment_->arms()) {
    auto& row = fresh.loss.emplace_back();
    for (auto const& given : demo_strategies()) {
      if (!a.exists() || interrupted()) continue;
      auto const what = resolve_strategy(given, a.spec().model);
      cpu_place place(a.weights(), pool_);
      measurement m(place, what, {cache_codec::f32, training_.model.context});
      row.push_back(m.loss(scored).mean());
    }
  }
  if (!interrupted()) losses_ = std::move(fresh);
  if (!interrupted()) try_live_report();
  table_seconds_ += clock.seconds();
}

void demo_run::show(bool table_is_new) {
  auto const done = static_cast<double>(experiment_->steps_done());
  auto const spent = training_clock_.seconds();
  auto const trained = spent - table_seconds_;
  auto const bytes = static_cast<double>(training_.tokens_per_step()) * done *
                     static_cast<double>(std::ranges::count_if(
                         experiment_->arms(), [](auto const& a) { return a.exists(); }));
  auto left = spent / done * (static_cast<double>(schedule_.steps) - done) + schedule_.reserve;
  if (options_.steps == 0) left = seconds_left();
  auto const line = training_line(*experiment_, bytes / trained, left);
  bool const with_table = live_.on_terminal() || table_is_new;
  live_.show((with_table ? "\n" + live_table_text(*experiment_, losses_) : "") + line,
             table_is_new);
}

demo_report demo_run::empty_report() const {
  return {machine_text(), experiment_->steps_done(), training_.seed, {}};
}

/// What a machine that is switched off leaves behind: the losses of the live table.
void demo_run::write_live_report() const {
  auto report = empty_report();
  for (std::size_t i = 0; i < losses_.loss.size(); ++i) {
    auto const& a = experiment_->arms()[i];
    if (!a.exists()) continue;
    auto& m = report.models.emplace_back(model_of(a));
    for (std::size_t j = 0; j < losses_.loss[i].size(); ++j) {
      auto const s = resolve_strategy(demo_strategies()[j], a.spec().model);
      auto const bytes =
          strata::bytes_per_token<strata::f32_codec>(s.plan, a.spec().model.classes());
      m.strategies.push_back(
          {s.given, s.leaders, s.retention, losses_.loss[i][j], static_cast<double>(bytes), {}});
    }
  }
  write_json(options_.out + "/report.json", to_json(report));
}

/// A disk that is full for a while is no reason to end the training. Said once.
void demo_run::try_live_report() {
  try {
    write_live_report();
  } catch (failure const& error) {
    if (std::exchange(live_report_failed_, true)) return;
    live_.keep();
    std::printf("%s; the training goes on\n", error.what());
  }
}

demo_report demo_run::score() {
  auto report = empty_report();
  auto const scored = windows(schedule_.eval_bytes);
  last_tokens_ = tokens_scored(scored);
  for (auto const& a : experiment_->arms()) {
    if (!a.exists()) continue;
    auto m = model_of(a);
    for (auto const& given : demo_strategies()) {
      if (interrupted()) break;
      auto const what = resolve_strategy(given, a.spec().model);
      cpu_place place(a.weights(), pool_);
      measurement one(place, what, {cache_codec::f32, training_.model.context});
      auto const news = [&](std::int64_t tokens, double) {
        live_.show(text("scoring %s at %s: %s of %s bytes\n", m.name.c_str(), given.c_str(),
                        count_text(tokens).c_str(), count_text(last_tokens_).c_str()));
      };
      auto line = one.report(scored, news);
      if (!interrupted()) m.strategies.push_back(std::move(line));
    }
    if (!m.strategies.empty()) report.models.push_back(std::move(m));
  }
  live_.clear();
  return report;
}

}  // namespace lm
