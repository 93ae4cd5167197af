// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The inputs that fuzzing found worth keeping, and some thousands of their changes.
#include <doctest/doctest.h>

#include <cstddef>
#include <random>
#include <string_view>

#include "fixtures.hpp"
#include "fuzz/corpus.hpp"
#include "fuzz/mutation.hpp"
#include "fuzz/tokenizer_target.hpp"

namespace {

using fuzz::buffer;

/// Other characters that say much in JSON and in patterns, so that it stays JSON now and then.
void change_json(buffer& input, buffer const& other, std::mt19937& random) {
  constexpr std::string_view characters = "0123456789abx <>+*?|sp{}[]()\\\"";
  if (random() % 4 == 0 || input.size() < 2) return fuzz::change(input, other, random);
  input[random() % input.size()] = static_cast<std::byte>(characters[random() % characters.size()]);
}

}  // namespace

TEST_CASE("replayed corpus: tokenizer.json") {
  if (!fixtures::has_pcre2) return;
  fuzz::tally<fuzz::tokenizer::num_reaches> came;
  for (auto const& input : fuzz::corpus_of("tokenizer"))
    came.add(fuzz::tokenizer::one_input(input));
  came.check(2);
}

TEST_CASE("thousands of changed inputs: tokenizer.json") {
  if (!fixtures::has_pcre2) return;
  fuzz::throw_at<fuzz::tokenizer::num_reaches>("tokenizer", 8'000, change_json,
                                               fuzz::tokenizer::one_input);
}
