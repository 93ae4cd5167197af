// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace bench {

/// What an iteration does at the very least.
struct machine_work {
  double bytes = 0;  ///< read from memory
  double fma_flops = 0;
  double bf16_flops = 0;
  double f16_conversions = 0;
  double int8_conversions = 0;
};

}  // namespace bench
