// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Scoring: each token once, with the context that its window gives it, whatever the batch.
#include <csignal>

#include "served.hpp"

#include "measure.hpp"

using served::text_of;

TEST_CASE("windows: every token but the first is scored once, in order, with enough before it") {
  for (std::size_t const size : {0, 1, 2, 7, 8, 9, 16, 17, 40, 1000})
    for (std::int32_t const context : {1, 2, 8, 15})
      for (std::int32_t stride = 1; stride <= context; ++stride) {
        CAPTURE(size);
        CAPTURE(context);
        CAPTURE(stride);
        auto const text = text_of(size, 251);
        std::size_t next = 1;  // the token that must be scored next
        bool first = true;
        for (auto const& w : lm::cut_windows(text, context, stride)) {
          auto const begin = static_cast<std::size_t>(w.text - text.data());
          REQUIRE(w.inputs <= context);
          REQUIRE(w.scored() > 0);
          REQUIRE(begin + static_cast<std::size_t>(w.inputs) < size);  // its last token exists
          REQUIRE(begin + static_cast<std::size_t>(w.first_scored) + 1 == next);
          if (first) CHECK(w.first_scored == 0);
          if (!first) CHECK(w.first_scored == context - stride);
          next += static_cast<std::size_t>(w.scored());
          first = false;
        }
        CHECK(next == std::max<std::size_t>(size, 1));
      }
}

TEST_CASE("score: the sum of every token's loss in its window, fed token by token") {
  strata::thread_pool pool(2);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  auto const text = text_of(61, config.vocab);
  constexpr std::int32_t context = 16, stride = 5;
  auto const windows = lm::cut_windows(text, context, stride);
  auto const plan = served::plan("every:2", config);

  served::exact_server single(weights, served::room(config, 1, context), pool);
  double expected = 0;
  for (auto const& w : windows) {
    auto const id = served::open(single, plan);
    for (std::int32_t i = 0; i < w.inputs; ++i) {
      std::int32_t const token = w.text[i];
      auto const row = served::run(single, id, std::span(&token, 1), strata::logits::last);
      if (i >= w.first_scored) expected += lm::token_loss(row.data(), config.vocab, w.text[i + 1]);
    }
    REQUIRE(single.close(id).ok());
  }

  for (std::int32_t const batch : {1, 3, 16})
    for (std::int32_t const step_tokens : {1, 7, 1000}) {
      CAPTURE(batch);
      CAPTURE(step_tokens);
      served::exact_server server(weights, served::room(config, batch, context), pool);
      lm::window_scorer<double> scorer(server, plan, step_tokens);
      auto const total = scorer.score(windows);
      REQUIRE(total.ok());
      CHECK(total->tokens == 60);
      CHECK(total->nats == doctest::Approx(expected).epsilon(1e-12));
      // All sequences were closed again, or there would be no room.
      CHECK(scorer.score(windows).ok());
    }
}

TEST_CASE("score: what the server refuses comes back, and its sequences are closed") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  served::exact_server server(weights, served::room(config, 2, 4), pool);
  auto const plan = served::plan("full", config);
  lm::window_scorer<double> scorer(server, plan);
  auto const text = text_of(30, config.vocab);
  CHECK(scorer.score(lm::cut_windows(text, 8, 4)).state().code == strata::errc::sequence_full);
  auto const fits = scorer.score(lm::cut_windows(text, 4, 2));
  REQUIRE(fits.ok());
  CHECK(fits->tokens == 29);
}

TEST_CASE("score: an interruption ends it between batches, and can be taken note of") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  served::exact_server server(weights, served::room(config, 2, 8), pool);
  lm::window_scorer<double> scorer(server, served::plan("full", config));
  auto const text = text_of(30, config.vocab);
  lm::catch_interrupts();
  std::raise(SIGTERM);
  CHECK(lm::interrupted());
  auto const nothing = scorer.score(lm::cut_windows(text, 8, 4));
  lm::begin_conclusion();
  CHECK_FALSE(lm::interrupted());
  CHECK(lm::was_interrupted());
  REQUIRE(nothing.ok());
  CHECK(nothing->tokens == 0);
  lm::detail::interrupt_ever = 0;  // for the tests after this one
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

TEST_CASE("repeats: the second copy of whole passages, from its second token on") {
  auto const text = text_of(30, 251);
  lm::token_blocks const blocks = {std::span(text).first(13), std::span(text).last(9)};
  for (std::int32_t const context : {7, 8}) {
    auto const repeats = lm::repeats_of(blocks, context);
    REQUIRE(repeats.windows.size() == 5);  // passages of 4: three of 13 bytes, two of 9
    CHECK(lm::tokens_scored(repeats.windows) == 5 * 3);
    for (auto const& w : repeats.windows) {
      CHECK(w.inputs == 7);
      CHECK(w.inputs <= context);
      for (std::int32_t i = 0; i < 4; ++i) CHECK(w.text[i] == w.text[i + 4]);
      CHECK(w.first_scored + 1 == 5);  // the first token that the first copy gives away
    }
    CHECK(repeats.windows[3].text[0] == text[21]);
  }
}

TEST_CASE("first_of: so many, over blocks") {
  auto const text = text_of(30, 251);
  lm::token_blocks const blocks = {std::span(text).first(10), std::span(text).subspan(15, 10)};
  CHECK(lm::first_of(blocks, 0).size() == 2);
  CHECK(lm::first_of(blocks, 10).size() == 1);
  auto const some = lm::first_of(blocks, 13);
  REQUIRE(some.size() == 2);
  CHECK(some[1].size() == 3);
  CHECK(some[1].data() == text.data() + 15);
  CHECK(lm::first_of(blocks, 1000).back().size() == 10);
}
