// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The server in double on the reference attention: the same numbers in whatever way a text is fed,
// and the same as training computes.
#include "served.hpp"

#include "layers.hpp"

using served::largest_difference;
using served::open;
using served::rounding;
using strata::logits;

namespace {

std::vector<lm::model_config> shapes() { return {tiny::shape(), tiny::shape_with_options()}; }

/// Logits of a whole text, [tokens, vocab], in one pass.
std::vector<double> whole(lm::server<double>& s, strata::route_plan const& plan,
                          std::span<std::int32_t const> text) {
  auto const id = open(s, plan);
  auto const all = served::run(s, id, text, logits::all);
  REQUIRE(s.close(id).ok());
  return all;
}

}  // namespace

TEST_CASE("server: a strategy's loss is the one that training computes under the same plan") {
  strata::thread_pool pool(2);
  for (auto const& config : shapes()) {
    constexpr std::int32_t sequences = 3, length = 7;
    tiny::tokens const batch(config, sequences, length);
    auto const weights = served::model<double>(config);
    lm::trainee<double> trained(config, strata::any_sampler{}, {sequences, length}, pool);
    std::ranges::copy(weights.values(), trained.weights().values().begin());
    served::exact_server server(weights, served::room(config, sequences, length), pool);
    for (auto const& given : served::strategies) {
      CAPTURE(given);
      auto const plan = served::plan(given, config);
      double nats = 0;
      for (std::int32_t s = 0; s < sequences; ++s) {
        std::vector<std::int32_t> const text(batch.inputs.begin() + s * length,
                                             batch.inputs.begin() + (s + 1) * length);
        auto const all = whole(server, plan, text);
        for (std::int32_t i = 0; i < length; ++i)
          nats += lm::token_loss(all.data() + i * config.vocab, config.vocab,
                                 batch.targets[static_cast<std::size_t>(s * length + i)]);
      }
      CHECK(nats / (sequences * length) ==
            doctest::Approx(trained.loss(plan, batch.batch())).epsilon(rounding));
    }
  }
}

TEST_CASE("server: token by token, in chunks and at once give the same logits") {
  strata::thread_pool pool(2);
  for (auto const& config : shapes()) {
    constexpr std::int32_t length = 150;  // more than a slab
    auto const weights = served::model<double>(config);
    auto const text = served::tokens(config, length);
    served::exact_server server(weights, served::room(config, 1, length), pool);
    for (auto const& given : served::strategies) {
      CAPTURE(given);
      auto const plan = served::plan(given, config);
      auto const expected = whole(server, plan, text);
      for (auto const chunk : {std::size_t{1}, std::size_t{4}, std::size_t{61}}) {
        CAPTURE(chunk);
        auto const id = open(server, plan);
        std::vector<double> all;
        for (std::size_t at = 0; at < text.size(); at += chunk) {
          auto const part = served::run(
              server, id, std::span(text).subspan(at, std::min(chunk, text.size() - at)),
              logits::all);
          all.insert(all.end(), part.begin(), part.end());
        }
        REQUIRE(server.close(id).ok());
        CHECK(largest_difference(all, expected) < rounding);
      }
    }
  }
}

TEST_CASE("server: leaving out the tail's work for rows without logits changes no logits") {
  strata::thread_pool pool(2);
  auto const config = tiny::shape_with_options();
  auto const weights = served::model<double>(config);
  auto const text = served::tokens(config, 140);
  auto const vocab = static_cast<std::size_t>(config.vocab);
  served::exact_server server(weights, served::room(config, 1, 150), pool);
  for (auto const& given : served::strategies) {
    CAPTURE(given);
    auto const plan = served::plan(given, config);
    auto const expected = whole(server, plan, text);
    auto const id = open(server, plan);
    std::span<std::int32_t const> const all(text);
    CHECK(served::run(server, id, all.first(90), logits::none).empty());
    auto const last = served::run(server, id, all.subspan(90), logits::last);
    REQUIRE(last.size() == vocab);
    CHECK(largest_difference(std::span<double const>(last),
                             std::span<double const>(expected).last(vocab)) < rounding);
    REQUIRE(server.close(id).ok());

    auto const again = open(server, plan);
    REQUIRE(lm::prefill<double>(server, again, text, 32).ok());
    CHECK(largest_difference(server.logits(), std::span<double const>(last)) < rounding);
    REQUIRE(server.close(again).ok());
  }
}

TEST_CASE("server: sequences of different depth in one batch are as each alone") {
  strata::thread_pool pool(2);
  for (auto const& config : shapes()) {
    auto const weights = served::model<double>(config);
    auto const vocab = static_cast<std::size_t>(config.vocab);
    auto const count = static_cast<std::int32_t>(served::strategies.size());
    served::exact_server together(weights, served::room(config, count, 60), pool);
    served::exact_server alone(weights, served::room(config, 1, 60), pool);

    std::vector<std::vector<std::int32_t>> texts;
    std::vector<strata::sequence_id> ids;
    for (std::int32_t i = 0; i < count; ++i) {
      texts.push_back(served::tokens(config, 20 + 5 * i, 10 + static_cast<std::uint64_t>(i)));
      ids.push_back(
          open(together, served::plan(served::strategies[static_cast<std::size_t>(i)], config)));
    }
    // Prompts of different lengths, then two tokens each; every third one wants all its logits.
    for (std::size_t const tokens : {std::size_t{18}, std::size_t{1}, std::size_t{1}}) {
      std::vector<lm::feed> batch;
      std::vector<std::size_t> begins;
      for (std::size_t i = 0; i < texts.size(); ++i) {
        auto const begin = static_cast<std::size_t>(together.length(ids[i]));
        auto const size = begin == 0 ? tokens + i : tokens;
        begins.push_back(begin);
        batch.push_back({ids[i], std::span(texts[i]).subspan(begin, size),
                         i % 3 == 0 ? logits::all : logits::last});
      }
      REQUIRE(together.run(batch).ok());
      auto rest = together.logits();
      for (std::size_t i = 0; i < texts.size(); ++i) {
        CAPTURE(served::strategies[i]);
        auto const end = begins[i] + batch[i].tokens.size();
        auto const expected = whole(alone, served::plan(served::strategies[i], config),
                                    std::span(texts[i]).first(end));
        auto const rows = i % 3 == 0 ? batch[i].tokens.size() : 1;
        CHECK(largest_difference(rest.first(rows * vocab),
                                 std::span<double const>(expected).last(rows * vocab)) < rounding);
        rest = rest.subspan(rows * vocab);
      }
      CHECK(rest.empty());
    }
  }
}

TEST_CASE("server: what it refuses has not happened") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  auto const text = served::tokens(config, 12);
  served::exact_server server(weights, served::room(config, 2, 12), pool);
  auto const plan = served::plan("every:2", config);
  auto const expected = whole(server, plan, text);
  auto const id = open(server, plan);
  std::span<std::int32_t const> const all(text);
  served::run(server, id, all.first(6), logits::none);

  std::vector<std::int32_t> const unknown = {0, config.vocab};
  auto const bad_token = server.run(lm::feed{id, unknown, logits::all});
  CHECK(bad_token.code == strata::errc::value_out_of_range);
  CHECK(bad_token.value == config.vocab);
  CHECK(bad_token.bound == config.vocab - 1);
  std::vector<std::int32_t> const negative = {-1};
  CHECK(server.run(lm::feed{id, negative, logits::all}).code == strata::errc::value_out_of_range);
  auto const too_long = server.run(lm::feed{id, all.first(7), logits::all});
  CHECK(too_long.code == strata::errc::sequence_full);
  CHECK(too_long.value == 13);
  CHECK(too_long.bound == 12);
  CHECK(server.run(lm::feed{{7}, all.first(1), logits::all}).code ==
        strata::errc::unknown_sequence);
  std::vector<lm::feed> const twice = {{id, all.first(1)}, {id, all.first(1)}};
  CHECK(server.run(twice).code == strata::errc::duplicate_sequence);

  CHECK(server.length(id) == 6);
  auto const rest = served::run(server, id, all.subspan(6), logits::all);
  CHECK(largest_difference(std::span<double const>(rest),
                           std::span<double const>(expected).last(rest.size())) < rounding);
}

TEST_CASE("server: noise fills a cache that decoding goes on from") {
  strata::thread_pool pool(2);
  auto const config = tiny::shape_with_options();
  auto const weights = served::model<double>(config);
  served::exact_server server(weights, served::room(config, 1, 400), pool);
  auto const id = open(server, served::plan("every:3", config));
  REQUIRE(server.fill_with_noise(id, 300).ok());
  CHECK(server.length(id) == 300);
  auto const text = served::tokens(config, 1);
  for (auto const logit : served::run(server, id, text, logits::last)) CHECK(std::isfinite(logit));
  CHECK(server.fill_with_noise(id, 100).code == strata::errc::sequence_full);
}
