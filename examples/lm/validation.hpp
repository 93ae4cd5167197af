// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The loss of what is held out, while a model trains: under each strategy, through the passes that
// train it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "failure.hpp"
#include "serving.hpp"
#include "token_batch.hpp"
#include "training_run.hpp"

namespace lm {

class validation {
 public:
  /// Of the first `tokens` that the run's data hold out, in windows of its sequences side by side.
  /// Throws where nothing is held out and there is a strategy.
  validation(training_run& run, std::vector<std::string> const& strategies, std::int64_t tokens)
      : run_(run), strategies_(resolve_strategies(strategies, run.options().model)) {
    if (strategies.empty()) return;
    auto const length = run.options().sequence_length();
    for (auto const& piece : run.data().held_out())
      for (std::size_t at = 0; at + static_cast<std::size_t>(length) < piece.size() &&
                               static_cast<std::int64_t>(inputs_.size()) < tokens;
           at += static_cast<std::size_t>(length)) {
        auto const window = piece.subspan(at, static_cast<std::size_t>(length) + 1);
        inputs_.insert(inputs_.end(), window.begin(), window.end() - 1);
        targets_.insert(targets_.end(), window.begin() + 1, window.end());
        ++windows_;
      }
    if (windows_ == 0)
      throw failure("--validate: nothing is held out in windows of --context " +
                        std::to_string(length) + "; give --hold-out N with a text",
                    exit_code::wrong_use);
  }

  bool empty() const noexcept { return strategies_.empty(); }

  /// {"step", "validation": [{"strategy", "loss", "tokens"}]}.
  nlohmann::ordered_json line() {
    auto list = nlohmann::ordered_json::array();
    for (auto const& s : strategies_)
      list.push_back({{"strategy", s.given}, {"loss", loss(s.plan)}, {"tokens", inputs_.size()}});
    return {{"step", run_.steps_done()}, {"validation", std::move(list)}};
  }

 private:
  double loss(strata::route_plan const& plan) {
    auto const length = std::int64_t{run_.options().sequence_length()};
    double sum = 0;
    for (std::int64_t at = 0; at < windows_;) {
      auto const now = std::min<std::int64_t>(run_.most().num_seqs, windows_ - at);
      token_batch const batch{inputs_.data() + at * length, targets_.data() + at * length,
                              static_cast<std::int32_t>(now), static_cast<std::int32_t>(length)};
      sum += run_.loss(plan, batch) * static_cast<double>(now);
      at += now;
    }
    return sum / static_cast<double>(windows_);
  }

  training_run& run_;
  std::vector<strategy> strategies_;
  std::vector<std::int32_t> inputs_, targets_;  // [windows, length]
  std::int64_t windows_ = 0;
};

}  // namespace lm
