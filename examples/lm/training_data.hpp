// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a run trains on, as tokens: windows of text here, questions in question_data.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <strata/random.hpp>

#include "text.hpp"
#include "token_batch.hpp"

namespace lm {

class text_coder;

/// Draws the sequences of a step. What it refers to is its maker's.
class training_data {
 public:
  virtual ~training_data() = default;

  /// Writes one sequence, inputs and targets [context]: that of key.sequence in key.step, which
  /// depends on the key alone. Returns how many of them it takes; behind those lie inputs 0 and
  /// no_target.
  virtual std::int32_t fill(strata::draw_key const& key, std::span<std::int32_t> inputs,
                            std::span<std::int32_t> targets) const = 0;

  /// Pieces of text, as tokens, that are kept out of training.
  virtual std::vector<std::span<std::int32_t const>> held_out() const = 0;

  /// What tells one text from another; a run goes on with the one it began with.
  virtual std::int64_t bytes() const = 0;
  virtual std::uint32_t checksum() const = 0;
};

/// Windows of a text. Element: bytes where they are the tokens, else int32.
template <class Element>
class windowed_text : public training_data {
 public:
  using stretches = std::vector<std::span<Element const>>;

  /// `training` is what the corpus keeps for training, in tokens; both are the caller's and outlive
  /// it. A window has `context` + 1 tokens. Throws where all are too short for one.
  windowed_text(corpus const& text, stretches const& training, std::int32_t context)
      : text_(text), windows_(training, std::int64_t{context} + 1, text.hold_out() != 0) {}

  std::int32_t fill(strata::draw_key const& key, std::span<std::int32_t> inputs,
                    std::span<std::int32_t> targets) const override {
    auto const window = windows_.draw(key);
    std::copy_n(window.begin(), inputs.size(), inputs.begin());
    std::copy_n(window.begin() + 1, targets.size(), targets.begin());
    return static_cast<std::int32_t>(inputs.size());
  }
  std::int64_t bytes() const override { return text_.bytes(); }
  std::uint32_t checksum() const override { return text_.checksum(); }

 private:
  corpus const& text_;
  window_sampler<Element> windows_;
};

/// Windows of a text's bytes.
class windowed_bytes final : public windowed_text<std::uint8_t> {
 public:
  windowed_bytes(corpus const& text, std::int32_t context)
      : windowed_text(text, text.training(), context) {
    if (text.hold_out() == 0) return;
    for (auto const& block : text.scored()) held_out_.emplace_back(block.begin(), block.end());
  }
  std::vector<std::span<std::int32_t const>> held_out() const override {
    return {held_out_.begin(), held_out_.end()};
  }

 private:
  std::vector<std::vector<std::int32_t>> held_out_;
};

/// Windows of a text in a model's tokens, which may be bytes.
std::unique_ptr<training_data> make_text_data(corpus const& text, text_coder const& coder,
                                              std::int32_t context);

}  // namespace lm
