// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The gradients of the mean cross-entropy are those of transformers' autograd, at full and under a
// map, where those of a source's K and V come from several layers.
#include <algorithm>

#include "family.hpp"
#include "trainer.hpp"

namespace {

using families::family;

/// Largest difference of a tensor's gradient, as a part of its largest element.
double error_of(lm::cpu_trainee& model, lm::tensor_entry const& entry,
                std::vector<float> const& expected) {
  double largest = 0;
  for (auto const g : expected) largest = std::max(largest, std::abs(double{g}));
  auto const error = families::largest_difference(model.gradients().tensor(entry), expected);
  return largest == 0 ? error : error / largest;
}

}  // namespace

TEST_CASE("families: gradients are those of transformers") {
  strata::thread_pool pool(2);
  for (std::string const name : {"llama3", "qwen3"}) {
    CAPTURE(name);
    family const f(name);
    std::vector<families::token> const tokens(f.tokens.begin(), f.tokens.end());
    for (std::string const strategy : {"full", "every:2"}) {
      CAPTURE(strategy);
      lm::cpu_trainee model(f.config(), strata::any_sampler(), {1, f.length()}, pool);
      std::ranges::copy(f.weights.values(), model.weights().values().begin());
      model.forward(f.plan(strategy), {tokens.data(), tokens.data() + 1, 1, f.length()});
      model.backward(f.plan(strategy));
      int compared = 0;
      for (auto const& entry : f.weights.table().entries) {
        auto const expected = f.gradient(strategy, entry);
        if (expected.empty()) continue;
        CAPTURE(entry.name);
        CHECK(error_of(model, entry, expected) < 2e-5);
        ++compared;
      }
      CHECK(compared == (f.config().qk_norm ? 11 : 9));
    }
  }
}

TEST_CASE("families: a follower's K and V get no gradient, in transformers either") {
  family const f("qwen3");
  auto const zero = [](float g) { return g == 0; };
  for (auto const& entry : f.weights.table().entries)
    if (entry.name == "layers.1.wk") {
      CHECK(std::ranges::all_of(f.gradient("every:2", entry), zero));
      CHECK(!std::ranges::all_of(f.gradient("full", entry), zero));
    }
}
