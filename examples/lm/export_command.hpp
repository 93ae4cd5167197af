// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// `strata-lm export`: a model as transformers loads it.
#pragma once

#include <string>
#include <vector>

#include "weight_type.hpp"

namespace CLI {
class App;
}

namespace lm {

struct export_options {
  std::string model, adapters;
  std::string out;                      ///< a folder
  std::vector<std::string> strategies;  ///< that it is meant to be served with
  weight_type weights = weight_type::bf16;
};

void add_export_command(CLI::App& program);

/// Writes config.json and model.safetensors, with how the model was trained and the strategies in
/// the metadata, and the tokenizer: its files where the model came from such a folder, else what
/// they would say. Throws `failure`.
void run_export(export_options options);

}  // namespace lm
