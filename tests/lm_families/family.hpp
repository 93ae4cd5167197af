// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Models that make_fixtures.py wrote, and what transformers computes with them.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/hugging_face.hpp"
#include "formats/hugging_face_names.hpp"
#include "formats/safetensors.hpp"
#include "parameters.hpp"
#include "serving.hpp"
#include "support/exact_numbers.hpp"
#include "token_batch.hpp"

namespace families {

inline std::vector<std::string> const names = {"llama2",  "llama-linear", "llama3", "llama3-8192",
                                               "smollm2", "mistral",      "qwen3",  "qwen3-untied"};
inline std::vector<std::string> const strategies = {"full", "every:2", "every:3", "leaders:0,1,3"};

inline std::string folder(std::string const& name) { return STRATA_FAMILIES "/" + name; }

/// What a batch's tokens are.
using token = std::remove_cvref_t<decltype(*lm::token_batch{}.inputs)>;

class family {
 public:
  lm::parameters<float> weights;
  std::vector<std::int32_t> tokens;  ///< one more than are fed

  explicit family(std::string const& name)
      : weights(lm::load_hugging_face(folder(name))),
        expected_(folder(name) + "/expected.safetensors") {
    auto const facts = nlohmann::json::parse(std::ifstream(folder(name) + "/expected.json"));
    facts.at("tokens").get_to(tokens);
    maps_ = facts.at("maps");
  }

  lm::model_config const& config() const { return weights.config(); }
  std::int32_t length() const { return static_cast<std::int32_t>(tokens.size()) - 1; }
  std::span<std::int32_t const> text() const { return std::span(tokens).first(tokens.size() - 1); }

  /// [length, vocab]
  std::vector<float> logits(std::string const& strategy) const {
    return expected("logits." + strategy);
  }
  /// Of one of our tensors; empty where the fixture has none.
  std::vector<float> gradient(std::string const& strategy, lm::tensor_entry const& entry) const {
    return expected("gradient." + strategy + "." + lm::detail::hugging_face_names().of(entry));
  }
  /// The plan of a strategy, whose sources are those that transformers' attention read.
  strata::route_plan plan(std::string const& strategy) const {
    auto const plan = lm::resolve_strategy(strategy, config()).plan;
    auto const sources = maps_.at(strategy).get<std::vector<std::int32_t>>();
    REQUIRE(std::ssize(sources) == plan.num_layers);
    for (std::size_t l = 0; l < sources.size(); ++l)
      REQUIRE(plan.layers[l].k.source.index == sources[l]);
    return plan;
  }

 private:
  std::vector<float> expected(std::string const& name) const {
    auto const* const tensor = expected_.find(name);
    if (tensor == nullptr) return {};
    std::vector<float> values(static_cast<std::size_t>(tensor->size()));
    expected_.read(static_cast<std::size_t>(tensor - expected_.tensors().data()), values);
    return values;
  }

  nlohmann::json maps_;  // strategy to the source of each layer
  lm::safetensors_file expected_;
};

/// The largest difference of two; infinite where one is not finite.
inline double largest_difference(std::span<float const> a, std::span<float const> b) {
  REQUIRE(a.size() == b.size());
  REQUIRE(!a.empty());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    support::keep_worst(worst, std::abs(double{a[i]} - b[i]));
  return worst;
}

}  // namespace families
