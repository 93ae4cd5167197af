// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// `strata-lm train`: its options, and what it does with them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device.hpp"
#include "training_options.hpp"

namespace CLI {
class App;
}

namespace lm {

struct train_request {
  training_options training;
  std::string out;   ///< the model, written at the end, when interrupted and every save_every steps
  std::string init;  ///< a model whose shape and weights to start from, or empty
  std::string adapters;        ///< with `init`: a folder of adapters to be added to it, or empty
  std::string adapters_out;    ///< with `training.lora`: a folder to write them to, or empty
  bool given_context = false;  ///< with `init`: training.model.context is what sequences have
  std::string log;             ///< JSON lines, one per step and validation, or empty
  std::vector<std::string> validate;  ///< strategies under which to score what is held out
  std::int64_t validate_every = 0;    ///< steps; 0: at the end only
  std::int64_t validate_tokens = 65536;
  bool weights_only = false;  ///< `out` can then not be resumed
  bool resume = false;        ///< go on with the run in `out`; `training` counts for its text only
  std::int64_t save_every = 0;  ///< steps; 0: at the end only
  std::int32_t threads = 0;     ///< 0: as many as the machine has
  device_kind device = device_kind::cpu;
};

void add_train_command(CLI::App& program);

/// Trains until done or interrupted. Throws `failure`.
void run_train(train_request const& request);

}  // namespace lm
