// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What cuts a text into the pieces that are encoded each for itself: expressions, one after the
// other, each on the parts that the one before it left. Letters, digits and the like are those of
// the Unicode that PCRE2 has, 14 in Debian 12. That of the package `tokenizers` is newer: 120 code
// points that were assigned since are cut otherwise by Llama 3's pattern there.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "tokenizer/pattern.hpp"
#include "tokenizer/regex.hpp"

namespace lm {

/// What becomes of what a pattern matches; names and meaning are those of the package `tokenizers`.
enum class split_behaviour {
  isolated,
  removed,
  merged_with_previous,
  merged_with_next,
  contiguous
};

struct split_rule {
  std::string pattern =
      {};  ///< of Oniguruma, as tokenizer.json has it; empty: the part stays whole
  split_behaviour behaviour = split_behaviour::isolated;
  bool invert = false;        ///< what lies between matches is what the pattern means
  bool prefix_space = false;  ///< first, a part that begins with no space gets one in front
};

/// Those of models that are known by name, on which GGUF relies.
namespace patterns {
inline constexpr char const* gpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr char const* llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr char const* qwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr char const* digit = R"(\p{N})";
inline constexpr char const* digits = R"(\p{N}+)";
}  // namespace patterns

/// Threads: const calls at the same time, each with its own regex_search.
class pre_tokenizer {
 public:
  using piece_function = std::function<void(std::string_view)>;

  /// Throws where a pattern cannot be had.
  explicit pre_tokenizer(std::vector<split_rule> const& rules) {
    for (auto const& rule : rules)
      stages_.push_back(
          {rule, regex(rule.pattern.empty() ? "." : translate_pattern(rule.pattern))});
  }

  /// Calls f with each piece, in order, none empty. text: valid UTF-8. Pieces live while f runs.
  void split(std::string_view text, regex_search& search, piece_function const& f) const {
    if (!text.empty()) split(text, 0, search, f);
  }

 private:
  struct stage {
    split_rule rule;
    regex expression;
  };

  void split(std::string_view text, std::size_t number, regex_search& search,
             piece_function const& f) const {
    if (number == stages_.size()) return f(text);
    auto const& now = stages_[number];
    std::string longer;
    if (now.rule.prefix_space && !text.starts_with(' ')) text = longer.append(" ").append(text);
    if (now.rule.pattern.empty()) return split(text, number + 1, search, f);
    if (number + 1 == stages_.size()) return cut(now, text, search, f);
    cut(now, text, search, [&](auto part) { split(part, number + 1, search, f); });
  }

  template <class F>
  static void cut(stage const& now, std::string_view text, regex_search& search, F const& f) {
    part_joiner<F> parts{now.rule.behaviour, text, f};
    std::size_t at = 0;
    while (at < text.size()) {
      auto const found = search.find(now.expression, text, at);
      if (found.begin > at) parts.add({at, found.begin}, now.rule.invert);
      if (found.end > found.begin) parts.add(found, !now.rule.invert);
      at = found.end;
    }
    parts.flush();
  }

  /// Takes matches and what lies between them, in order, and gives the parts.
  template <class F>
  struct part_joiner {
    split_behaviour behaviour;
    std::string_view text;
    F const& f;
    text_range held = {};
    bool last_matched = false;

    void add(text_range range, bool matched) {
      if (behaviour == split_behaviour::isolated) return f(of(range));
      if (behaviour == split_behaviour::removed) {
        if (!matched) f(of(range));
        return;
      }
      if (held.end > 0 && joins(matched)) {
        held.end = range.end;
      } else {
        flush();
        held = range;
      }
      last_matched = matched;
    }
    bool joins(bool matched) const {
      if (behaviour == split_behaviour::contiguous) return matched == last_matched;
      bool const to_previous = behaviour == split_behaviour::merged_with_previous;
      return to_previous ? matched && !last_matched : !matched && last_matched;
    }
    void flush() {
      if (held.end > held.begin) f(of(held));
      held = {};
    }
    std::string_view of(text_range range) const {
      return text.substr(range.begin, range.end - range.begin);
    }
  };

  std::vector<stage> stages_;
};

}  // namespace lm
