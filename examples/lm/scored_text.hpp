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
#include "text_coder.hpp"

namespace lm {

/// Fills in the context and the stride that were left to the model. Throws where windows of those do
/// not cover a text.
inline void check_windows(text_options& o, model_config const& config) {
  if (o.context == 0) o.context = config.context;
  if (o.stride == 0) o.stride = std::max(o.context / 2, 1);
  if (o.stride > o.context)
    throw failure("--stride is " + std::to_string(o.stride) + "; it must be at most --context, " +
                      std::to_string(o.context),
                  exit_code::wrong_use);
}

/// Windows lie in the tokens, which move with them.
class scored_text {
 public:
  /// Options that `check_windows` has seen; the tokens are those of a model file, of this shape.
  /// Throws where nothing is left to score, and where the model has too few tokens.
  scored_text(text_options const& o, std::string const& model, model_config const& config)
      : name_(o.text.empty() ? "the King James Bible" : o.text),
        corpus_(corpus::read(o.text.empty() ? std::vector<std::string>() : std::vector{o.text},
                             o.hold_out)),
        tokens_(first_of(corpus_.scored(), o.max_bytes), coder_of(model, config)),
        windows_(windows_of(tokens_.blocks(), o.context, o.stride)) {
    if (tokens_scored(windows_) == 0)
      throw failure(name_ + ": nothing to score" +
                    (o.hold_out > 0 ? "; it has no held-out block of 16 KB" : ""));
  }

  std::string const& name() const noexcept { return name_; }
  token_blocks blocks() const { return tokens_.blocks(); }
  std::vector<window> const& windows() const noexcept { return windows_; }
  std::int64_t tokens() const { return tokens_scored(windows_); }
  /// Tells it from another text.
  std::uint32_t checksum() const noexcept { return corpus_.checksum(); }

 private:
  static text_coder coder_of(std::string const& model, model_config const& config) {
    auto coder = load_text_coder(model);
    require_vocabulary(coder, config);
    return coder;
  }

  std::string name_;
  corpus corpus_;
  token_text tokens_;
  std::vector<window> windows_;
};

}  // namespace lm
