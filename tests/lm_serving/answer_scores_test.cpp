// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Scores of answers beside those of SQuAD's and ROUGE's own programs.
#include "answer_scores.hpp"

#include <doctest/doctest.h>

#include "answer_score_cases.hpp"

TEST_CASE("score_answer: F1, exact match and ROUGE-L as SQuAD's and ROUGE's programs have them") {
  std::size_t partial = 0;
  for (auto const& c : answer_score_cases) {
    CAPTURE(c.given);
    CAPTURE(c.accepted.front());
    CHECK(lm::normalised_answer(c.given) == c.normalised);
    auto const s = lm::score_answer(c.given, c.accepted);
    CHECK(s.f1 == doctest::Approx(c.f1).epsilon(1e-12));
    CHECK(s.em == c.em);
    CHECK(s.rouge_l == doctest::Approx(c.rouge_l).epsilon(1e-12));
    partial += c.rouge_l > 0 && c.rouge_l < c.f1 && c.f1 < 1;
  }
  CHECK(partial > 5);  // where order matters and neither is 0 or 1
}
