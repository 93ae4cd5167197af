// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One strategy of one model, measured: what eval and the demo put into a line.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "evaluate.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "serving.hpp"
#include "serving_place.hpp"

namespace lm {

/// The pieces of a text, each in one piece.
using text_blocks = std::vector<std::span<std::uint8_t const>>;
using token_blocks = std::vector<std::span<std::int32_t const>>;

/// The beginning of a list of blocks, `count` elements in all; 0: everything.
template <class Element>
std::vector<std::span<Element const>> first_of(std::vector<std::span<Element const>> blocks,
                                               std::int64_t count) {
  if (count == 0) return blocks;
  std::vector<std::span<Element const>> out;
  for (auto const& block : blocks) {
    auto const size = std::min(block.size(), static_cast<std::size_t>(count));
    if (size > 0) out.push_back(block.first(size));
    count -= static_cast<std::int64_t>(size);
  }
  return out;
}

/// The windows of all blocks, each block by itself.
inline std::vector<window> windows_of(token_blocks const& blocks, std::int32_t context,
                                      std::int32_t stride) {
  std::vector<window> windows;
  for (auto const& block : blocks) {
    auto const more = cut_windows(block, context, stride);
    windows.insert(windows.end(), more.begin(), more.end());
  }
  return windows;
}

inline std::int64_t tokens_scored(std::span<window const> windows) {
  std::int64_t tokens = 0;
  for (auto const& w : windows) tokens += w.scored();
  return tokens;
}

/// Repeated passages of the blocks, and windows that score the second copies from their second
/// token on.
struct repeated_text {
  std::vector<std::vector<std::int32_t>> passages;
  std::vector<window> windows;
};

inline repeated_text repeats_of(token_blocks const& blocks, std::int32_t context) {
  repeated_text out;
  for (auto const& block : blocks) {
    auto more = repeated_passages(block, context);
    for (auto& passage : more) out.passages.push_back(std::move(passage));
  }
  for (auto const& passage : out.passages) {
    auto const size = static_cast<std::int32_t>(passage.size());
    out.windows.push_back({passage.data(), size - 1, size / 2});
  }
  return out;
}

struct measure_options {
  cache_codec codec = cache_codec::f32;
  std::int32_t context = 128;   ///< inputs of the longest window
  std::int32_t sequences = 16;  ///< windows at a time, fewer where they are long
};

/// The server of a strategy, made for windows of a context.
class measurement {
 public:
  measurement(serving_place& place, strategy const& what, measure_options const& options)
      : what_(what), place_(place), options_(options) {
    auto const at_once = std::clamp(16384 / options.context, 1, options.sequences);
    serving_ = place.make_server(what.plan, {options.codec, at_once, options.context},
                                 {scoring_rows, scoring_rows});
  }

  server<float>& serving() { return *serving_; }

  /// The loss of windows; `progress(tokens, seconds)` hears of it now and then.
  template <class Progress>
  loss_sum loss(std::span<window const> windows, Progress const& progress) {
    window_scorer<float> scorer(*serving_, what_.plan);
    loss_sum total;
    stopwatch const clock;
    auto const part = static_cast<std::size_t>(4 * serving_->max_sequences());
    while (!windows.empty() && !interrupted()) {
      auto const now = std::min(part, windows.size());
      auto const scored = scorer.score(windows.first(now));
      require(scored.state(), "scoring with " + what_.given);
      total += *scored;
      windows = windows.subspan(now);
      progress(total.tokens, clock.seconds());
    }
    return total;
  }
  loss_sum loss(std::span<window const> windows) {
    return loss(windows, [](std::int64_t, double) {});
  }

  /// As window_scorer::visit: calls body(window, logits [vocab], next token).
  template <class Body>
  void visit(std::span<window const> windows, Body const& body) {
    window_scorer<float> scorer(*serving_, what_.plan);
    require(scorer.visit(windows, body), "scoring with " + what_.given);
  }

  /// Everything that a report says of a strategy.
  template <class Progress>
  strategy_report report(std::span<window const> windows, Progress const& progress) {
    strategy_report r;
    r.strategy = what_.given;
    r.leaders = what_.leaders;
    r.retention = what_.retention;
    r.loss = loss(windows, progress).mean();
    auto const capacity =
        std::int64_t{serving_->max_tokens()} * std::int64_t{serving_->max_sequences()};
    r.kv_bytes_per_token =
        static_cast<double>(serving_->allocated_bytes()) / static_cast<double>(capacity);
    if (!interrupted()) r.times = times(windows);
    return r;
  }

 private:
  /// A prompt of half a context, the beginning of the text repeated if need be, then 64 tokens.
  speed times(std::span<window const> windows) {
    auto const half = std::max(options_.context / 2, 1);
    constexpr std::int32_t new_tokens = 64;
    std::vector<std::int32_t> prompt;
    auto const& from = windows.front();
    for (std::int32_t i = 0; i < half; ++i) prompt.push_back(from.text[i % from.inputs]);
    auto const one = place_.make_server(what_.plan, {options_.codec, 1, half + new_tokens}, {});
    auto const measured = measure_speed<float>(*one, what_.plan, prompt, new_tokens);
    require(measured.state(), "timing " + what_.given);
    return *measured;
  }

  strategy const& what_;
  serving_place& place_;
  measure_options options_;
  std::unique_ptr<server<float>> serving_;
};

}  // namespace lm
