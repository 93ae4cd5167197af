// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Runs bodies (block_ops.hpp) on a device.
#pragma once

#include <cstdint>
#include <string>

#include <cuda_runtime_api.h>

#include <strata/cuda/detail/device_block.cuh>

#include "cuda/block_ops.hpp"
#include "cuda/machine_failure.hpp"

namespace lm::cuda {

/// Throws unless a call of the CUDA runtime did what it should. `doing` opens the sentence.
inline void check(cudaError_t outcome, char const* doing) {
  if (outcome == cudaSuccess) return;
  auto const code =
      outcome == cudaErrorMemoryAllocation ? exit_code::does_not_fit : exit_code::failed;
  throw machine_failure(std::string("CUDA, ") + doing + ": " + cudaGetErrorString(outcome), outcome,
                        code);
}

template <class Body>
__global__ void __launch_bounds__(block_threads) run_body(Body body) {
  body(strata::cuda::detail::device_block{});
}

/// Enqueues a body. Its arguments are copied; what they point at must outlive the work.
template <class Body>
void launch(cudaStream_t stream, Body const& body) {
  grid const g = body.size();
  if (g.blocks < 1) return;  // of no rows
  run_body<<<static_cast<unsigned>(g.blocks), static_cast<unsigned>(g.threads),
             static_cast<std::size_t>(g.shared_bytes), stream>>>(body);
  check(cudaGetLastError(), "a launch");
}

}  // namespace lm::cuda
