// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Choosing tokens, continuing prompts, and bytes on a terminal.
#include "generate.hpp"

#include <cmath>

#include "served.hpp"

TEST_CASE("choose_token: the likeliest at temperature 0, the lowest of equals") {
  std::vector<double> const logits = {1, 3, -2, 3};
  CHECK(lm::choose_token<double>(logits, 0, 1, 1) == 1);
}

TEST_CASE("choose_token: draws follow softmax(logits / temperature) and nothing but key and step") {
  std::vector<double> const logits = {0, 1, -1, 0.5};
  constexpr double temperature = 0.7;
  constexpr int draws = 20000;
  std::vector<int> counts(4);
  for (std::uint64_t step = 0; step < draws; ++step) {
    auto const token = lm::choose_token<double>(logits, temperature, 5, step);
    CHECK(token == lm::choose_token<double>(logits, temperature, 5, step));
    ++counts[static_cast<std::size_t>(token)];
  }
  double total = 0;
  for (auto const l : logits) total += std::exp(l / temperature);
  for (std::size_t i = 0; i < 4; ++i) {
    auto const expected = std::exp(logits[i] / temperature) / total;
    auto const deviation = std::sqrt(expected * (1 - expected) / draws);
    CHECK(std::abs(counts[i] / double{draws} - expected) < 5 * deviation);
  }
}

TEST_CASE("continue_prompt: greedy tokens are those of one full pass over the result") {
  strata::thread_pool pool(2);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  served::exact_server server(weights, served::room(config, 1, 40), pool);
  auto const plan = served::plan("every:2", config);
  auto text = served::tokens(config, 9);
  auto const prompt = text.size();
  std::vector<std::int32_t> heard;
  auto const made = lm::continue_prompt(server, plan, std::span<std::int32_t const>(text),
                                        {20, 0, 0}, [&](std::int32_t t) { heard.push_back(t); });
  REQUIRE(made.tokens.size() == 20);
  CHECK(made.tokens == heard);
  text.insert(text.end(), made.tokens.begin(), made.tokens.end());
  auto const all = served::run(server, served::open(server, plan), text, strata::logits::all);
  auto const vocab = static_cast<std::size_t>(config.vocab);
  for (std::size_t i = 0; i < made.tokens.size(); ++i) {
    auto const row = std::span<double const>(all).subspan((prompt + i - 1) * vocab, vocab);
    CHECK(lm::choose_token(row, 0, 0, 0) == made.tokens[i]);
  }
}

TEST_CASE("continue_prompt: what does not fit throws and leaves no sequence behind") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  served::exact_server server(weights, served::room(config, 1, 12), pool);
  auto const plan = served::plan("full", config);
  auto const text = served::tokens(config, 9);
  auto const ignore = [](std::int32_t) {};
  CHECK_THROWS_AS(
      lm::continue_prompt(server, plan, std::span<std::int32_t const>(text), {20, 0, 0}, ignore),
      lm::failure);
  CHECK_NOTHROW(
      lm::continue_prompt(server, plan, std::span<std::int32_t const>(text), {3, 0, 0}, ignore));
}

TEST_CASE("byte_printer: characters as they are, other bytes as escapes") {
  auto const print = [](char const* bytes) { return lm::byte_printer::print(bytes); };
  CHECK(print("plain, tab\tand\nline") == "plain, tab\tand\nline");
  CHECK(print("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80") ==
        "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
  CHECK(print("\x1b[2J") == "\\x1b[2J");            // no terminal commands
  CHECK(print("a\xFFz") == "a\\xffz");              // never in UTF-8
  CHECK(print("\x80") == "\\x80");                  // continues nothing
  CHECK(print("\xE2\x82") == "\\xe2\\x82");         // ends too early
  CHECK(print("\xE2\x82z") == "\\xe2\\x82z");       // broken off by a letter
  CHECK(print("\xE2\xC3\xA9") == "\\xe2\xC3\xA9");  // broken off by a character
  CHECK(print("\xC0\x80 \xE0\x80\x80") == "\\xc0\\x80 \\xe0\\x80\\x80");  // overlong
  CHECK(print("\xED\xA0\x80") == "\\xed\\xa0\\x80");                      // a surrogate
  CHECK(print("\xF4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");             // beyond U+10FFFF
  CHECK(print("\xC2\x9B") == "\\xc2\\x9b");  // a control character, too
}
