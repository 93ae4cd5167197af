// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What it costs that a leader is one no longer, measured on a text.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "estimate.hpp"
#include "measure.hpp"
#include "progress.hpp"

namespace lm {

/// Leaders as a strategy is written: "leaders:0,4".
inline std::string leaders_strategy(std::vector<std::int32_t> const& leaders) {
  std::string out = "leaders:";
  for (auto const l : leaders) out += (out.back() == ':' ? "" : ",") + std::to_string(l);
  return out;
}

/// The same leaders but one, whose readers go to the nearest that is left before it.
inline strategy without(strategy const& from, std::int32_t layer, model_config const& config) {
  auto leaders = from.leaders;
  std::erase(leaders, layer);
  return resolve_strategy(leaders_strategy(leaders), config);
}

/// A leader that was removed, alone or after others, and the loss without it.
struct removal {
  std::int32_t layer = 0;
  strategy left;
  std::vector<double> loss;  ///< [windows], sums over their scored tokens
};

/// Measures sets of leaders on one text.
class leader_removals {
 public:
  /// All outlive it. A window takes `context` tokens at most.
  leader_removals(serving_place& place, std::span<window const> windows,
                  measure_options const& options)
      : place_(place), windows_(windows), options_(options) {}

  /// [windows]: nats that each loses. Of those that an interruption left out, 0.
  std::vector<double> losses(strategy const& what) {
    std::vector<double> sums(windows_.size());
    auto const vocab = std::int64_t{place_.config().vocab};
    measurement serving(place_, what, options_);
    serving.visit(windows_, [&](std::size_t w, float const* row, std::int32_t next) {
      sums[w] += token_loss(row, vocab, next);
    });
    return sums;
  }

  /// Every leader but the first, which none could replace, removed alone. `progress(layer)` hears of
  /// each before it is measured. Ends early when interrupted, with the removals that are whole.
  template <class Progress>
  std::vector<removal> one_by_one(strategy const& from, Progress const& progress) {
    std::vector<removal> removed;
    for (std::size_t i = 1; i < from.leaders.size() && !interrupted(); ++i) {
      auto const layer = from.leaders[i];
      progress(layer);
      removal one{layer, without(from, layer, place_.config()), {}};
      one.loss = losses(one.left);
      if (!interrupted()) removed.push_back(std::move(one));
    }
    return removed;
  }

  /// Goes on from the first removals until one leader is left, each time without the one that costs
  /// least. Some num_layers^2 / 2 sets are measured.
  template <class Progress>
  std::vector<removal> greedily(std::vector<removal> candidates, Progress const& progress) {
    std::vector<removal> path;
    while (!candidates.empty() && !interrupted()) {
      auto const best = std::ranges::min_element(
          candidates, {}, [&](removal const& r) { return estimate_of(r.loss, windows_).mean; });
      path.push_back(std::move(*best));
      candidates = one_by_one(path.back().left, progress);
    }
    return path;
  }

 private:
  serving_place& place_;
  std::span<window const> windows_;
  measure_options options_;
};

}  // namespace lm
