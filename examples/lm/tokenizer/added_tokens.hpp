// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Tokens that are found in a text before anything else is done to it: "<|im_end|>" and the like.
// The leftmost is taken, of several the longest.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/regex.hpp"
#include "tokenizer/utf8.hpp"

namespace lm {

/// As tokenizer.json describes them.
struct added_token {
  std::int32_t id = 0;
  std::string content;
  bool special = false;      ///< belongs to the model's protocol and to nobody's text
  bool single_word = false;  ///< not where a letter, a digit or _ is beside it
  bool lstrip = false;       ///< with the white space before it
  bool rstrip = false;       ///< with the white space behind it
  bool normalized = false;   ///< looked for after the text was normalised
};

/// A part of a text: a token, or text between them.
struct text_part {
  text_range range;
  std::int32_t token = -1;  ///< -1: text
};

/// Threads: const calls at the same time, each with its own regex_search.
class added_token_finder {
 public:
  /// No content is empty, and none is there twice.
  explicit added_token_finder(std::vector<added_token> tokens) : tokens_(std::move(tokens)) {
    for (std::size_t index = 0; index < tokens_.size(); ++index) {
      std::uint32_t node = 0;
      for (auto const byte : tokens_[index].content) {
        auto const [child, made] = children_.try_emplace(edge(node, byte), num_nodes_);
        if (made) ++num_nodes_;
        node = child->second;
      }
      ends_[node] = index;
      begins_[static_cast<unsigned char>(tokens_[index].content[0])] = true;
      if (tokens_[index].single_word && !word_) word_.emplace(word_class);
    }
  }

  /// Calls f with each part of the text, in order. special: whether special tokens are looked for;
  /// where they are not, they hide no others. Costs the text's bytes times the longest content.
  template <class F>
  void split(std::string_view text, bool special, regex_search& search, F const& f) const {
    std::size_t done = 0, at = 0;
    while (at < text.size()) {
      auto const* const token = longest_at(text.substr(at));
      auto range = text_range{at, at + (token == nullptr ? 1 : token->content.size())};
      at = range.end;
      if (token == nullptr || (token->special && !special) ||
          in_a_word(*token, text, range, search))
        continue;
      if (token->lstrip) range.begin = std::max(done, white_space_before(text, range.begin));
      if (token->rstrip) range.end = white_space_behind(text, range.end);
      if (done < range.begin) f(text_part{{done, range.begin}});
      f(text_part{range, token->id});
      done = at = range.end;
    }
    if (done < text.size()) f(text_part{{done, text.size()}});
  }

 private:
  /// What Rust's \w means: Alphabetic, M, Nd, Pc and Join_Control.
  static constexpr char const* word_class =
      "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200C}\\x{200D}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"
      "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}]";

  static std::uint64_t edge(std::uint32_t node, char byte) noexcept {
    return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
  }

  added_token const* longest_at(std::string_view text) const {
    if (!begins_[static_cast<unsigned char>(text[0])]) return nullptr;
    added_token const* longest = nullptr;
    std::uint32_t node = 0;
    for (auto const byte : text) {
      auto const child = children_.find(edge(node, byte));
      if (child == children_.end()) break;
      node = child->second;
      if (auto const end = ends_.find(node); end != ends_.end()) longest = &tokens_[end->second];
    }
    return longest;
  }

  bool in_a_word(added_token const& token, std::string_view text, text_range range,
                 regex_search& search) const {
    if (!token.single_word) return false;
    auto const before = last_code_point(text.substr(0, range.begin));
    auto const behind = first_code_point(text.substr(range.end));
    return is_word(text.substr(range.begin - before.bytes, before.bytes), search) ||
           is_word(text.substr(range.end, behind.bytes), search);
  }
  bool is_word(std::string_view character, regex_search& search) const {
    return !character.empty() && search.find(*word_, character, 0).begin == 0;
  }

  static std::size_t white_space_before(std::string_view text, std::size_t at) noexcept {
    while (true) {
      auto const before = last_code_point(text.substr(0, at));
      if (before.bytes == 0 || !is_white_space(before.value)) return at;
      at -= before.bytes;
    }
  }
  static std::size_t white_space_behind(std::string_view text, std::size_t at) noexcept {
    while (true) {
      auto const behind = first_code_point(text.substr(at));
      if (behind.bytes == 0 || !is_white_space(behind.value)) return at;
      at += behind.bytes;
    }
  }

  std::vector<added_token> tokens_;
  std::unordered_map<std::uint64_t, std::uint32_t> children_;  // a node and a byte: the next node
  std::unordered_map<std::uint32_t, std::size_t> ends_;        // a node: the token that ends there
  std::uint32_t num_nodes_ = 1;
  bool begins_[256] = {};
  std::optional<regex> word_;
};

}  // namespace lm
