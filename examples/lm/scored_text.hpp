// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The text that a command scores: what its options choose of which file, in windows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "commands.hpp"
#include "config.hpp"
#include "failure.hpp"
#include "measure.hpp"
#include "text.hpp"

namespace lm {

/// Fills in the context and the stride that were left to the model. Throws where windows of those do
/// not cover a text, and where the model reads no bytes.
inline void check_windows(text_options& o, model_config const& config) {
  if (o.context == 0) o.context = config.context;
  if (o.stride == 0) o.stride = std::max(o.context / 2, 1);
  if (o.stride > o.context)
    throw failure("--stride is " + std::to_string(o.stride) + "; it must be at most --context, " +
                      std::to_string(o.context),
                  exit_code::wrong_use);
  if (config.vocab < 256)
    throw failure("the model has " + std::to_string(config.vocab) +
                  " tokens; scoring text takes one per byte, 256");
}

/// Spans lie in the corpus, which moves with them.
class scored_text {
 public:
  /// Options that `check_windows` has seen. Throws where nothing is left to score.
  explicit scored_text(text_options const& o)
      : name_(o.text.empty() ? "the King James Bible" : o.text),
        corpus_(corpus::read(o.text.empty() ? std::vector<std::string>() : std::vector{o.text},
                             o.hold_out)),
        blocks_(first_bytes(corpus_.scored(), o.max_bytes)),
        windows_(windows_of(blocks_, o.context, o.stride)) {
    if (tokens_scored(windows_) == 0)
      throw failure(name_ + ": nothing to score" +
                    (o.hold_out > 0 ? "; it has no held-out block of 16 KB" : ""));
  }

  std::string const& name() const noexcept { return name_; }
  text_blocks const& blocks() const noexcept { return blocks_; }
  std::vector<window> const& windows() const noexcept { return windows_; }
  std::int64_t tokens() const { return tokens_scored(windows_); }
  /// Tells it from another text.
  std::uint32_t checksum() const noexcept { return corpus_.checksum(); }

 private:
  std::string name_;
  corpus corpus_;
  text_blocks blocks_;
  std::vector<window> windows_;
};

}  // namespace lm
