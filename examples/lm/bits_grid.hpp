// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Depth x bits: what a cache of fewer layers and fewer bits loses, cell by cell, on the same text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "divergence.hpp"
#include "measure.hpp"
#include "progress.hpp"

namespace lm {

/// One strategy with one codec, and what each window said of it: sums over its scored tokens.
struct grid_cell {
  strategy const* depth = nullptr;
  cache_codec codec = cache_codec::f32;
  double bytes_per_token = 0;
  std::vector<double> loss;        ///< [windows], nats
  std::vector<double> from_depth;  ///< [windows], divergence from the same strategy in f32
  std::vector<double> from_full;   ///< [windows], divergence from the first strategy in f32
};

/// A server per cell, all at a time: rows of logits are compared as they come, and only those of a
/// few windows are kept.
class bits_grid {
 public:
  /// The first codec must be f32, and the first strategy is what `from_full` compares with. The
  /// place and the strategies outlive the grid.
  bits_grid(serving_place& place, std::vector<strategy> const& depths,
            std::vector<cache_codec> const& codecs, std::int32_t context)
      : vocab_(place.config().vocab), codecs_(codecs.size()), full_(vocab_), depth_(vocab_) {
    auto const classes = place.config().classes();
    for (auto const& depth : depths)
      for (auto const codec : codecs) {
        servers_.emplace_back(place, depth, measure_options{codec, context});
        auto const bytes = with_codecs(codec, [&]<class K, class V>(K, V) {
          return strata::bytes_per_token<K, V>(depth.plan, classes);
        });
        cells_.push_back({&depth, codec, static_cast<double>(bytes), {}, {}, {}});
      }
  }

  /// Scores windows in all cells. Those that an interruption left behind are missing in all.
  template <class Progress>
  void score(std::span<window const> windows, Progress const& progress) {
    stopwatch const clock;
    for (std::size_t at = 0; at < windows.size();) {
      auto const part =
          windows.subspan(at, std::min<std::size_t>(windows_at_once, windows.size() - at));
      full_.clear();
      for (std::size_t i = 0; i < cells_.size(); ++i) score_cell(i, part);
      if (interrupted()) break;
      at += part.size();
      scored_ = at;
      progress(tokens_scored(windows.first(at)), clock.seconds());
    }
    for (auto& cell : cells_)
      for (auto* const sums : {&cell.loss, &cell.from_depth, &cell.from_full})
        sums->resize(scored_);
  }

  /// Of each strategy all codecs, in order.
  std::vector<grid_cell> const& cells() const noexcept { return cells_; }
  std::size_t windows_scored() const noexcept { return scored_; }

 private:
  static constexpr std::size_t windows_at_once = 64;

  void score_cell(std::size_t index, std::span<window const> part) {
    auto& cell = cells_[index];
    bool const is_full = index == 0, is_reference = index % codecs_ == 0;
    if (is_reference) depth_.clear();
    auto const before = cell.loss.size();
    for (auto* const sums : {&cell.loss, &cell.from_depth, &cell.from_full})
      sums->resize(before + part.size());
    std::size_t row_number = 0;
    servers_[index].visit(part, [&](std::size_t which, float const* row, std::int32_t next) {
      auto const total = log_total(row, vocab_);
      if (is_full) full_.add(row, total);
      if (is_reference) depth_.add(row, total);
      cell.loss[before + which] += total - static_cast<double>(row[next]);
      if (!is_reference)
        cell.from_depth[before + which] += depth_.divergence_to(row_number, row, total);
      if (!is_full) cell.from_full[before + which] += full_.divergence_to(row_number, row, total);
      ++row_number;
    });
  }

  std::int64_t vocab_;
  std::size_t codecs_;
  std::vector<measurement> servers_;
  std::vector<grid_cell> cells_;
  reference_rows<float> full_, depth_;
  std::size_t scored_ = 0;
};

}  // namespace lm
