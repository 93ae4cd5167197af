// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Training runs of a few milliseconds.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <strata/thread_pool.hpp>

#include "text.hpp"
#include "tiny.hpp"
#include "tiny_files.hpp"
#include "trainer.hpp"

namespace tiny {

/// a b c ... z a b c ..., with a space after each z.
inline std::vector<std::uint8_t> letters(std::size_t size) {
  std::vector<std::uint8_t> text;
  for (std::size_t i = 0; i < size; ++i)
    text.push_back(static_cast<std::uint8_t>(i % 27 == 26 ? ' ' : 'a' + i % 27));
  return text;
}

/// 6 sequences of 31 bytes: 186 rows, two slabs of which the second is short.
inline lm::training_options run_options(bool with_model_options) {
  lm::training_options o;
  o.model = with_model_options ? shape_with_options() : shape();
  o.model.vocab = 256;
  o.model.context = 31;
  o.routing = "rcla:0.4";
  o.batch = 6;
  o.steps = 6;
  o.seed = 11;
  return o;
}

/// A trainer with a text and threads of its own.
class tiny_run {
 public:
  explicit tiny_run(lm::training_options const& o, std::int32_t threads = 1,
                    std::vector<std::uint8_t> text = letters(5000))
      : text_({std::move(text)}, o.hold_out), pool_(threads), trainer_(o, text_, pool_) {}

  lm::trainer& trainer() noexcept { return trainer_; }
  lm::corpus const& text() const noexcept { return text_; }

 private:
  lm::corpus text_;
  strata::thread_pool pool_;
  lm::trainer trainer_;
};

/// Floats as what they are made of: NaN equals itself, and -0 is not 0.
inline std::vector<std::uint32_t> bits(lm::parameters<float> const& weights) {
  std::vector<std::uint32_t> out;
  for (auto const v : weights.values()) out.push_back(std::bit_cast<std::uint32_t>(v));
  return out;
}

}  // namespace tiny
