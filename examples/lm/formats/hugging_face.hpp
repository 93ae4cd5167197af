// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Models as Hugging Face's transformers keeps them: a folder with config.json and safetensors
// files. LlamaForCausalLM, MistralForCausalLM and Qwen3ForCausalLM are read, as far as this
// program's model computes the same as they do; what it does not is refused with the field and its
// value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../config.hpp"
#include "../narrow_weights.hpp"
#include "../parameters.hpp"
#include "safetensors_writer.hpp"
#include "strict_json.hpp"

namespace lm {

/// What a config.json describes; `about` opens the messages. Fields that are missing are what
/// transformers takes instead, those that nobody computes with are passed over.
model_config config_from_hugging_face(strict_json const& json, std::string const& about);

model_config load_hugging_face_config(std::string const& folder);
parameters<float> load_hugging_face(std::string const& folder);
/// The same, matrices rounded to bf16, without all of them in float at any time.
narrow_weights load_narrow_hugging_face(std::string const& folder);

/// The tokens that end what a model says: "eos_token_id" of generation_config.json or, where that
/// does not say, of config.json; one or several, or none.
std::vector<std::int32_t> load_end_tokens(std::string const& folder);

/// How a model was trained and is meant to be served; kept in its files, where transformers passes
/// it over.
struct routing_recipe {
  nlohmann::ordered_json training;      ///< as in checkpoints; null where nothing is known
  std::vector<std::string> strategies;  ///< "full", "every:2", ...
};

/// As files keep it, under "strata".
nlohmann::ordered_json to_json(routing_recipe const& recipe);

/// That of a folder; empty where it has none.
routing_recipe load_recipe(std::string const& folder);

/// Makes the folder where there is none and writes model.safetensors, then config.json, each as a
/// whole. transformers loads the result as what computes the same as this program. ends: as
/// load_end_tokens returns them.
void save_hugging_face(std::string const& folder, parameters<float> const& weights,
                       routing_recipe const& recipe, weight_type type = weight_type::f32,
                       std::vector<std::int32_t> const& ends = {});

}  // namespace lm
