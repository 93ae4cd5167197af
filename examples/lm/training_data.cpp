// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "training_data.hpp"

#include "text_coder.hpp"

namespace lm {
namespace {

struct coded_text {
  token_text training, held_out;
};

/// The tokens, which go first, and windows of them.
class windowed_tokens final : private coded_text, public windowed_text<std::int32_t> {
 public:
  windowed_tokens(corpus const& text, text_coder const& coder, std::int32_t context)
      : coded_text{token_text(text.training(), coder),
                   text.hold_out() == 0 ? token_text() : token_text(text.scored(), coder)},
        windowed_text(text, coded_text::training.blocks(), context) {}
  std::vector<std::span<std::int32_t const>> held_out() const override {
    return coded_text::held_out.blocks();
  }
};

}  // namespace

std::unique_ptr<training_data> make_text_data(corpus const& text, text_coder const& coder,
                                              std::int32_t context) {
  if (coder.bytes()) return std::make_unique<windowed_bytes>(text, context);
  return std::make_unique<windowed_tokens>(text, coder, context);
}

}  // namespace lm
