// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Many prompts at once: each goes on as it does alone.
#include "greedy_batch.hpp"

#include <map>
#include <set>

#include "served.hpp"
#include "support/sanitized.hpp"

namespace {

constexpr std::int32_t max_tokens = 8;

/// Of lengths from 1 on, no two alike.
std::vector<std::vector<std::int32_t>> prompts_for(lm::model_config const& config, int count) {
  std::vector<std::vector<std::int32_t>> out;
  for (int i = 0; i < count; ++i)
    out.push_back(served::tokens(config, 1 + (i * 7) % 20, static_cast<std::uint64_t>(i + 1)));
  return out;
}

bool ends(std::int32_t token) { return token % 6 == 0; }

/// What one prompt gives without any batch.
std::vector<std::int32_t> alone(lm::server<double>& server, strata::route_plan const& plan,
                                std::vector<std::int32_t> const& prompt) {
  std::vector<std::int32_t> out;
  auto const made =
      lm::continue_prompt(server, plan, std::span(prompt), {max_tokens, 0, 0}, [](std::int32_t) {});
  for (auto const token : made.tokens) {
    if (ends(token)) break;
    out.push_back(token);
  }
  return out;
}

}  // namespace

TEST_CASE("greedy_batch: every prompt goes on as it does alone") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  auto const prompts = prompts_for(config, 17);
  for (auto const* const given : {"full", "every:2"}) {
    CAPTURE(given);
    auto const plan = served::plan(given, config);
    served::exact_server one(weights, served::room(config, 1, 40), pool);
    for (std::int32_t const sequences : {1, 4, 20}) {
      CAPTURE(sequences);
      served::exact_server server(weights, served::room(config, sequences, 40), pool);
      lm::greedy_batch<double> batch(server, plan, max_tokens);
      std::map<std::size_t, std::vector<std::int32_t>> made;
      auto const outcome = batch.run(prompts, ends, [&](std::size_t i, auto const& tokens) {
        CHECK(made.emplace(i, tokens).second);
      });
      REQUIRE(outcome.ok());
      REQUIRE(made.size() == prompts.size());
      std::set<std::size_t> lengths;
      for (auto const& [i, tokens] : made) {
        CHECK(tokens == alone(one, plan, prompts[i]));
        lengths.insert(tokens.size());
      }
      CHECK(lengths.size() > 2);  // some end early
      CHECK(lengths.contains(max_tokens));
    }
  }
}

TEST_CASE("greedy_batch: prompts of more rows than a step has") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  std::vector<std::vector<std::int32_t>> prompts;
  for (auto const length : support::sampled<std::int32_t>({600, 5, 700, 1100}))
    prompts.push_back(served::tokens(config, length));
  auto const plan = served::plan("every:2", config);
  served::exact_server one(weights, served::room(config, 1, 1110), pool);
  served::exact_server server(weights, served::room(config, 3, 1110), pool);
  lm::greedy_batch<double> batch(server, plan, max_tokens);
  std::size_t heard = 0;
  auto const outcome = batch.run(prompts, ends, [&](std::size_t i, auto const& tokens) {
    CHECK(tokens == alone(one, plan, prompts[i]));
    ++heard;
  });
  REQUIRE(outcome.ok());
  CHECK(heard == prompts.size());
}

TEST_CASE("greedy_batch: what does not fit is refused and leaves no sequence behind") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const weights = served::model<double>(config);
  auto const plan = served::plan("full", config);
  served::exact_server server(weights, served::room(config, 2, 12), pool);
  lm::greedy_batch<double> batch(server, plan, max_tokens);
  auto const ignore = [](std::size_t, auto const&) {};
  auto const fitting = prompts_for(config, 1);
  for (int i = 0; i < 3; ++i) {
    std::vector<std::vector<std::int32_t>> const too_long = {served::tokens(config, 3),
                                                             served::tokens(config, 13)};
    CHECK(!batch.run(too_long, ends, ignore).ok());
    CHECK(batch.run(fitting, ends, ignore).ok());
  }
}
