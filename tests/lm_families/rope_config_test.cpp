// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// RoPE in config.json, in the forms of old and new versions of transformers, and what is refused.
#include <doctest/doctest.h>

#include <string>

#include "formats/hugging_face.hpp"

using lm::rope_scaling;
using lm::rope_scaling_kind;
using lm::strict_json;

namespace {

/// A Llama's, without RoPE.
strict_json plain() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 32U},
          {"intermediate_size", 44U},
          {"num_hidden_layers", 5U},
          {"num_attention_heads", 4U},
          {"vocab_size", 42U},
          {"max_position_embeddings", 4096U}};
}
strict_json with(char const* name, strict_json const& value, strict_json json = plain()) {
  json[name] = value;
  return json;
}
/// Llama 3.1's numbers.
strict_json llama3() {
  return {{"rope_type", "llama3"},
          {"factor", 8.0},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192U}};
}
strict_json without(char const* name, strict_json json = llama3()) {
  json.erase(name);
  return json;
}

rope_scaling mapped(strict_json const& json) {
  return lm::config_from_hugging_face(json, "x").rope_scaling;
}
std::string refused(strict_json const& json) {
  try {
    lm::config_from_hugging_face(json, "x");
  } catch (lm::failure const& failure) {
    return failure.what();
  }
  return "";
}

constexpr rope_scaling none{}, linear{rope_scaling_kind::linear, 4},
    as_llama3{rope_scaling_kind::llama3, 8, 1, 4, 8192};

}  // namespace

TEST_CASE("config.json: RoPE scaling stands where a version of transformers put it") {
  CHECK(mapped(plain()) == none);
  CHECK(mapped(with("rope_scaling", nullptr)) == none);
  CHECK(mapped(with("rope_scaling", {{"type", "linear"}, {"factor", 4}})) == linear);
  CHECK(mapped(with("rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}})) == linear);
  CHECK(mapped(with("rope_scaling", {{"rope_type", "default"}})) == none);
  CHECK(mapped(with("rope_scaling", llama3())) == as_llama3);
  auto both = with("rope_theta", 5e5, llama3());
  CHECK(mapped(with("rope_parameters", both)) == as_llama3);
  CHECK(lm::config_from_hugging_face(with("rope_parameters", both), "x").rope_theta == 5e5);
  CHECK(mapped(with("rope_parameters", both, with("rope_scaling", llama3()))) == as_llama3);
}

TEST_CASE("config.json: where the original context is not said, it is what transformers takes") {
  auto const unsaid = without("original_max_position_embeddings");
  CHECK(mapped(with("rope_scaling", unsaid)).original_context == 4096);
  auto const beside = with("original_max_position_embeddings", 2048U);
  CHECK(mapped(with("rope_scaling", llama3(), beside)).original_context == 2048);
}

TEST_CASE("config.json: RoPE that this program does not compute is refused by name") {
  for (char const* const type : {"yarn", "dynamic", "longrope", "proportional", "none", ""})
    CHECK(refused(with("rope_scaling", {{"rope_type", type}, {"factor", 4}})) ==
          std::string("x: rope_scaling: rope_type is \"") + type +
              "\"; it must be default, linear or llama3");
  CHECK(refused(with("rope_scaling", {{"type", "dynamic"}})) ==
        "x: rope_scaling: type is \"dynamic\"; it must be default, linear or llama3");
  CHECK(refused(with("rope_scaling", {{"type", "linear"}})) ==
        "x: rope_scaling: factor is missing; it must be a number");
  CHECK(refused(with("rope_scaling", without("low_freq_factor"))) ==
        "x: rope_scaling: low_freq_factor is missing; it must be a number");
  CHECK(refused(with("rope_scaling", with("high_freq_factor", "4", llama3()))) ==
        "x: rope_scaling: high_freq_factor is \"4\"; it must be a number");
  CHECK(refused(with("rope_scaling", with("factor", 0.5, llama3()))) ==
        "x: RoPE scaling: factor is 0.500000; it must be from 1 to a million");
  CHECK(refused(
            with("rope_parameters", {{"rope_type", "default"}}, with("rope_scaling", llama3()))) ==
        "x: rope_parameters is {\"rope_type\":\"default\"}; rope_scaling says otherwise");
  strict_json const by_kind = {{"full_attention", {{"rope_type", "default"}}}};
  CHECK(refused(with("rope_parameters", by_kind)) ==
        "x: rope_parameters: full_attention is {\"rope_type\":\"default\"}; all layers must be "
        "turned alike");
}
