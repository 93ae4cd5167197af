// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <strata/checksum.hpp>
#include <strata/random.hpp>

#include "failure.hpp"
#include "question.hpp"
#include "text.hpp"
#include "text_coder.hpp"
#include "training_data.hpp"

namespace lm {

/// Questions as sequences: a prompt, its first answer and an end mark. The question comes first with
/// probability 1/2, and its passages in one of three orders that it keeps (arXiv:2604.22782 permutes
/// those of its multi-passage set three ways).
class question_data final : public training_data {
 public:
  static constexpr std::uint32_t num_orders = 3;

  /// With answers_only, prompts do not count. Throws where a question does not fit into `context`
  /// tokens, with its line.
  question_data(std::string const& path, text_coder coder, std::int32_t context, bool answers_only)
      : coder_(std::move(coder)), end_(end_of(coder_)), answers_only_(answers_only) {
    auto const file = read_file(path);
    bytes_ = static_cast<std::int64_t>(file.size());
    checksum_ = strata::crc32c(std::as_bytes(std::span(file)));
    std::string_view const text(reinterpret_cast<char const*>(file.data()), file.size());
    for (auto& q : parse_questions(text, path)) add(path, std::move(q), context);
  }

  /// The token that ends an answer: the model's, or where there is none, as with bytes, that of a new
  /// line. Throws where there is neither.
  static std::int32_t end_of(text_coder const& coder) {
    if (!coder.ends().empty()) return coder.ends().front();
    auto const line = coder.encode("\n");
    if (line.size() != 1)
      throw failure("the tokenizer has no token that ends a text, and none for the end of a line");
    return line.front();
  }

  std::int64_t count() const noexcept { return static_cast<std::int64_t>(questions_.size()); }

  std::int32_t fill(strata::draw_key const& key, std::span<std::int32_t> inputs,
                    std::span<std::int32_t> targets) const override {
    auto const words =
        strata::draw_words(key, strata::whole_model, strata::draw_purpose::data_order);
    auto const number = std::uint64_t{words.word[2]} << 32 | words.word[3];
    auto const& q = questions_[number % questions_.size()];
    auto const& order = q.orders[words.word[0] % num_orders];
    auto tokens = sequence(q.asked, (words.word[1] & 1) != 0, order);
    // Another form may take a token more than that which was seen to fit.
    if (tokens.all.size() > inputs.size() + 1) tokens = sequence(q.asked, false, q.orders[0]);
    std::ranges::fill(inputs, 0);
    std::ranges::fill(targets, no_target);
    auto const rows = tokens.all.size() - 1;
    std::copy_n(tokens.all.begin(), rows, inputs.begin());
    auto const first = answers_only_ ? tokens.prompt - 1 : std::size_t{0};
    std::copy(tokens.all.begin() + static_cast<std::ptrdiff_t>(first) + 1, tokens.all.end(),
              targets.begin() + static_cast<std::ptrdiff_t>(first));
    return static_cast<std::int32_t>(rows);
  }

  std::vector<std::span<std::int32_t const>> held_out() const override { return {}; }
  std::int64_t bytes() const override { return bytes_; }
  std::uint32_t checksum() const override { return checksum_; }

 private:
  struct ordered_question {
    question asked;
    std::vector<std::int32_t> orders[num_orders];
  };
  struct sequence_tokens {
    std::vector<std::int32_t> all;  // prompt, answer, end mark
    std::size_t prompt = 0;         // tokens of it
  };

  void add(std::string const& path, question q, std::int32_t context) {
    ordered_question made{std::move(q), {}};
    for (std::uint32_t i = 0; i < num_orders; ++i)
      made.orders[i] = order_of(made.asked.passages.size(), i);
    auto const size = sequence(made.asked, false, made.orders[0]).all.size();
    if (size > static_cast<std::size_t>(context) + 1)
      throw failure(path + ", line " + std::to_string(made.asked.line) + ": takes " +
                    std::to_string(size) + " tokens with its answer; --context " +
                    std::to_string(context) + " has room for " + std::to_string(context + 1));
    questions_.push_back(std::move(made));
  }

  /// The first order is the file's, the others are shuffles of it, which the question's place draws.
  std::vector<std::int32_t> order_of(std::size_t passages, std::uint32_t which) const {
    std::vector<std::int32_t> order(passages);
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = passages; which > 0 && i > 1; --i) {
      auto const words =
          strata::draw_words({questions_.size(), i}, which, strata::draw_purpose::data_order);
      auto const other = strata::pick(words, static_cast<std::int32_t>(i));
      std::swap(order[i - 1], order[static_cast<std::size_t>(other)]);
    }
    return order;
  }

  sequence_tokens sequence(question const& q, bool question_first,
                           std::span<std::int32_t const> order) const {
    sequence_tokens tokens;
    tokens.all = coder_.encode(prompt_text(q, question_first, order));
    tokens.prompt = tokens.all.size();
    auto const answer = coder_.encode(answer_text(q));
    tokens.all.insert(tokens.all.end(), answer.begin(), answer.end());
    tokens.all.push_back(end_);
    return tokens;
  }

  text_coder coder_;
  std::int32_t end_;  // the end mark
  bool answers_only_ = false;
  std::int64_t bytes_ = 0;  // of the file
  std::uint32_t checksum_ = 0;
  std::vector<ordered_question> questions_;
};

}  // namespace lm
