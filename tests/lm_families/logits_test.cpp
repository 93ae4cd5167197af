// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The logits of every family, with a cache of every layer and with shared ones, are those of
// transformers: in training's forward pass, in one prefill, in chunks and token by token.
#include <algorithm>
#include <memory>

#include "family.hpp"
#include "trainer.hpp"

namespace {

using families::family;
using families::largest_difference;

/// Both sides round in float32; logits are of the order of 2.
constexpr double bound = 1e-4;

template <class Body>
void for_all(Body const& body) {
  for (auto const& name : families::names) {
    CAPTURE(name);
    family const f(name);
    for (auto const& strategy : families::strategies) {
      CAPTURE(strategy);
      body(f, strategy);
    }
  }
}

/// A server with room for the text alone.
std::unique_ptr<lm::server<float>> serve(family const& f, strata::route_plan const& plan,
                                         strata::thread_pool& pool) {
  return lm::make_server(f.weights, pool, plan, {lm::cache_codec::f32, 1, f.length()});
}

/// All logits of the text, fed `chunk` tokens a step.
std::vector<float> served(family const& f, std::string const& strategy, std::size_t chunk) {
  strata::thread_pool pool(2);
  auto const plan = f.plan(strategy);
  auto const server = serve(f, plan, pool);
  auto const id = server->open(plan).value();
  std::vector<float> all;
  for (auto rest = f.text(); !rest.empty(); rest = rest.subspan(std::min(chunk, rest.size()))) {
    auto const part = rest.first(std::min(chunk, rest.size()));
    REQUIRE(server->run(lm::feed{id, part, strata::logits::all}).ok());
    all.insert(all.end(), server->logits().begin(), server->logits().end());
  }
  return all;
}

}  // namespace

TEST_CASE("families: training's forward pass computes the logits of transformers") {
  strata::thread_pool pool(2);
  for_all([&](family const& f, std::string const& strategy) {
    std::vector<families::token> const tokens(f.tokens.begin(), f.tokens.end());
    lm::cpu_trainee model(f.config(), strata::any_sampler(), {1, f.length()}, pool);
    std::ranges::copy(f.weights.values(), model.weights().values().begin());
    auto const loss =
        model.loss(f.plan(strategy), {tokens.data(), tokens.data() + 1, 1, f.length()});
    CHECK(loss > 0);
    auto const expected = f.logits(strategy);
    CHECK(largest_difference({model.memory().pass.logits, expected.size()}, expected) < bound);
  });
}

TEST_CASE("families: a server computes the logits of transformers, however the text is fed") {
  for_all([&](family const& f, std::string const& strategy) {
    auto const expected = f.logits(strategy);
    for (std::size_t const chunk : {f.text().size(), std::size_t{11}, std::size_t{1}}) {
      CAPTURE(chunk);
      CHECK(largest_difference(served(f, strategy, chunk), expected) < bound);
    }
  });
}

TEST_CASE("families: what a prompt's tail leaves out changes no logits of transformers") {
  strata::thread_pool pool(2);
  for_all([&](family const& f, std::string const& strategy) {
    auto const plan = f.plan(strategy);
    auto const server = serve(f, plan, pool);
    auto const id = server->open(plan).value();
    REQUIRE(lm::prefill(*server, id, f.text(), 20).ok());
    auto const expected = f.logits(strategy);
    auto const vocab = static_cast<std::size_t>(f.config().vocab);
    CHECK(largest_difference(server->logits(), std::span(expected).last(vocab)) < bound);
  });
}

TEST_CASE("families: a text longer than the model's context is served, its RoPE scaled alike") {
  family const f("llama3");
  REQUIRE(f.config().context < f.length());
  CHECK(largest_difference(served(f, "every:2", 1), f.logits("every:2")) < bound);
}
