// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The door from the program to the device: what is behind it is compiled by nvcc, where there is one.
#pragma once

#include <memory>
#include <string>

#include "training_run.hpp"

namespace lm::cuda {

/// A run of training on the current device: a new one, or with `saved` the one that was saved.
/// Throws where there is no device, or too little of its memory.
std::unique_ptr<training_run> make_run(training_options const& options,
                                       std::shared_ptr<training_data const> data,
                                       checkpoint const* saved);

/// The device's name and memory.
std::string device_text();

}  // namespace lm::cuda
