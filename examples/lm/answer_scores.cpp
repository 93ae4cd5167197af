// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "answer_scores.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <vector>

namespace lm {
namespace {

using words = std::vector<std::string>;

// Those of <cctype> follow the locale. Separators of files up to those of units are space to Python.
bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1C' && c <= '\x1F');
}
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_punctuation(char c) {
  bool const digit = c >= '0' && c <= '9';
  return c > ' ' && c < 0x7F && !digit && !is_letter(c);
}

words words_of(std::string_view text) {
  words out;
  std::string word;
  auto const end_word = [&] {
    bool const article = word == "a" || word == "an" || word == "the";
    if (!word.empty() && !article) out.push_back(word);
    word.clear();
  };
  for (char const c : text) {
    if (is_space(c))
      end_word();
    else if (!is_punctuation(c))
      word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  end_word();
  return out;
}

/// Words that both have, each as often as both have it.
std::size_t words_in_common(words const& a, words const& b) {
  std::map<std::string, std::size_t> left;
  for (auto const& word : b) ++left[word];
  std::size_t common = 0;
  for (auto const& word : a) {
    auto const found = left.find(word);
    if (found == left.end() || found->second == 0) continue;
    --found->second;
    ++common;
  }
  return common;
}

std::size_t longest_common_subsequence(words const& a, words const& b) {
  std::vector<std::size_t> best(b.size() + 1, 0);  // of the words of `a` so far and j words of b
  for (auto const& word : a) {
    std::size_t diagonal = 0;  // best[j] of one word less
    for (std::size_t j = 0; j < b.size(); ++j) {
      auto const above = best[j + 1];
      best[j + 1] = word == b[j] ? diagonal + 1 : std::max(above, best[j]);
      diagonal = above;
    }
  }
  return best.back();
}

/// The harmonic mean of what part of the one and of the other so many words are; 0 of none.
double f_measure(std::size_t common, words const& a, words const& b) {
  if (common == 0) return 0;
  return 2 * static_cast<double>(common) / static_cast<double>(a.size() + b.size());
}

answer_scores score(words const& given, words const& accepted) {
  answer_scores s;
  s.em = given == accepted ? 1 : 0;
  s.f1 = given.empty() || accepted.empty()
             ? s.em
             : f_measure(words_in_common(given, accepted), given, accepted);
  s.rouge_l = f_measure(longest_common_subsequence(given, accepted), given, accepted);
  return s;
}

}  // namespace

std::string normalised_answer(std::string_view text) {
  std::string out;
  for (auto const& word : words_of(text)) out += (out.empty() ? "" : " ") + word;
  return out;
}

answer_scores score_answer(std::string_view given, std::span<std::string const> accepted) {
  auto const said = words_of(given);
  answer_scores best;
  for (auto const& one : accepted) {
    auto const s = score(said, words_of(one));
    best.f1 = std::max(best.f1, s.f1);
    best.em = std::max(best.em, s.em);
    best.rouge_l = std::max(best.rouge_l, s.rouge_l);
  }
  return best;
}

}  // namespace lm
