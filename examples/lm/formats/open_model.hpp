// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model from whatever has one: a checkpoint of strata-lm, a GGUF file or a folder of Hugging
// Face's, told apart by what is in them.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "../narrow_weights.hpp"
#include "../parameters.hpp"
#include "../weight_type.hpp"

namespace lm {

struct loaded_model {
  parameters<float> weights;
  nlohmann::ordered_json training;  ///< what the file says of it; null where it says nothing
};

/// Throws `failure` where it is none of the three or not whole. `adapters`: a folder of them, which
/// are added to its weights and say how it was trained, or empty; they are looked at first, so that
/// what does not belong to the model costs no time.
loaded_model load_model(std::string const& path, std::string const& adapters = {});

/// The weights alone, matrices rounded to bf16, those of GGUF and Hugging Face's files on the way:
/// they are never all there in float. Where there are adapters, the sums are rounded once more.
narrow_weights load_narrow_model(std::string const& path, std::string const& adapters = {});

/// bf16 where all matrices of the file are, else f32.
weight_type stored_weights(std::string const& path);

/// Its shape; weights are not read.
model_config load_model_config(std::string const& path);

}  // namespace lm
