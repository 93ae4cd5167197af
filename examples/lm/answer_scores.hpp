// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How near an answer is to those that are accepted, as SQuAD and ROUGE count it.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lm {

/// Each in [0, 1]; of several accepted answers the best counts, for each score by itself.
struct answer_scores {
  double f1 = 0;       ///< of words, as a bag
  double em = 0;       ///< 1: the same words in the same order
  double rouge_l = 0;  ///< F-measure of the longest common subsequence of words
};

/// SQuAD's: small letters, no punctuation, none of the words a, an and the, and one space between
/// words. Letters, punctuation and space are those of ASCII; other bytes are parts of words.
std::string normalised_answer(std::string_view text);

/// Both are normalised. Where one has no words, F1 is whether both have none, as SQuAD 2 has it,
/// and ROUGE-L is 0.
answer_scores score_answer(std::string_view given, std::span<std::string const> accepted);

}  // namespace lm
