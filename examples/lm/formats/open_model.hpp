// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model from whatever has one: a checkpoint of strata-lm, a GGUF file or a folder of Hugging
// Face's, told apart by what is in them.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "../parameters.hpp"

namespace lm {

struct loaded_model {
  parameters<float> weights;
  nlohmann::ordered_json training;  ///< what the file says of it; null where it says nothing
};

/// Throws `failure` where it is none of the three or not whole.
loaded_model load_model(std::string const& path);

/// Its shape; weights are not read.
model_config load_model_config(std::string const& path);

/// What it says of its training; weights are not read.
nlohmann::ordered_json load_model_training(std::string const& path);

}  // namespace lm
