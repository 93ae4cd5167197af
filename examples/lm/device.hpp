// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where a command computes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "failure.hpp"

#if STRATA_LM_CUDA
#include "cuda/device_run.hpp"
#endif

namespace lm {

enum class device_kind { cpu, cuda };

/// As the command line spells them.
inline std::vector<std::pair<std::string, device_kind>> device_names() {
  return {{"cpu", device_kind::cpu}, {"cuda", device_kind::cuda}};
}

/// Refuses a device that this program was not built for.
inline void require_built_for(device_kind device) {
#if STRATA_LM_CUDA
  static_cast<void>(device);
#else
  if (device == device_kind::cuda)
    throw failure("--device cuda: this strata-lm was built without CUDA", exit_code::wrong_use);
#endif
}

}  // namespace lm
