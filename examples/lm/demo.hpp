// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One run of the demo: the models of one seed, from the first step to the report.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <strata/thread_pool.hpp>

#include "commands.hpp"
#include "demo_arms.hpp"
#include "demo_clock.hpp"
#include "demo_view.hpp"
#include "measure.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "text_coder.hpp"

namespace lm {

class demo_run {
 public:
  /// The text and the threads are the caller's and outlive it. `text_name` is for the announcement;
  /// the minutes count from the start of `clock`.
  demo_run(demo_options const& options, std::uint64_t seed, corpus const& text_read,
           std::string text_name, strata::thread_pool& pool, stopwatch clock = {});

  /// Estimates, announces, trains, and scores. Returns what there is when somebody interrupts.
  demo_report run();

  /// All models at the end; only after `run`.
  experiment const& models() const { return *experiment_; }
  bool was_cut_short() const noexcept { return !experiment_->finished(); }
  std::int64_t tokens_scored_at_the_end() const noexcept { return last_tokens_; }
  training_options const& training() const noexcept { return training_; }

 private:
  void announce();
  void train();
  void renew_table();
  bool out_of_time() const;
  void show(bool table_is_new);
  demo_report score();
  demo_report empty_report() const;
  void write_live_report() const;
  void try_live_report();
  std::vector<window> windows(std::int64_t bytes) const;
  double seconds_left() const { return 60 * options_.minutes - clock_.seconds(); }

  demo_options options_;
  corpus const& text_;
  std::string text_name_;
  strata::thread_pool& pool_;
  stopwatch clock_;
  training_options training_;
  demo_schedule schedule_;
  demo_costs costs_;
  std::vector<arm_spec> specs_;
  token_text scored_;  // all of the text that is kept out of training
  std::unique_ptr<experiment> experiment_;
  live_text live_{stdout, 10};
  live_losses losses_;
  bool live_report_failed_ = false;
  stopwatch training_clock_;
  double table_seconds_ = 0;  // of the training's clock, spent on live tables
  std::int64_t last_tokens_ = 0;
};

}  // namespace lm
