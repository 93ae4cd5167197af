// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Adapters (LoRA) as Hugging Face's PEFT keeps them: a folder with adapter_config.json and
// adapter_model.safetensors, of which every adapted matrix W [out, in] has two tensors, lora_A
// [r, in] and lora_B [out, r]. The model computes with W + s B A, s = lora_alpha / r; ours have no
// factor, so that lora_alpha is written as r. Matrices have the names, rows and columns that they
// have in a model's own folder. Adapters of the matrices of layers alone are read; what would change
// a model in any other way is refused with the field and its value.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../adapter_table.hpp"
#include "../narrow_weights.hpp"
#include "../parameters.hpp"
#include "hugging_face.hpp"

namespace lm {

/// Adapters from a folder, s among the numbers of B.
struct loaded_adapters {
  adapter_table table;  ///< its matrices are those that the folder has adapters of
  std::vector<float> values;
  nlohmann::ordered_json training;  ///< what the folder says of it; null where it says nothing
};

/// Those of a model of this shape. Throws `failure`, before any memory is taken, where a name, a
/// shape or a rank is not the model's, where an adapter lacks one of its two tensors and where a
/// matrix that adapter_config.json names has none.
loaded_adapters load_adapters(std::string const& folder, model_config const& config);

/// Adds them to the matrices of their model.
void add_adapters(loaded_adapters const& adapters, parameters<float>& model);
/// The same of a model in bf16: sums in float, rounded once, a matrix at a time.
void add_adapters(loaded_adapters const& adapters, narrow_weights& model);

/// Makes the folder where there is none and writes adapter_model.safetensors, with the recipe in its
/// metadata as a model's file has it, then adapter_config.json, which PEFT reads with no fields but
/// its own; each as a whole. values: as adapter_table lays them out; base: the folder or file of the
/// model that they belong to.
void save_adapters(std::string const& folder, model_config const& config, std::int64_t rank,
                   std::span<float const> values, std::string const& base,
                   routing_recipe const& recipe);

}  // namespace lm
