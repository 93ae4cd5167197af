// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How kernels are started. A kernel is one body with its arguments: hidden, so that two libraries
// that vendor strata do not share it.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include <strata/config.hpp>
#include <strata/cuda/detail/device_block.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// The runtime keeps the last error until somebody asks: it has been told by what this returns.
inline status as_status(::cudaError_t error) noexcept {
  if (error == ::cudaSuccess) return {};
  (void)::cudaGetLastError();
  return {errc::device_failure, no_layer, static_cast<std::int64_t>(error), 0};
}

/// Body: `threads`, `blocks_per_multiprocessor` (what registers are cut to) and a static
/// `run(block, args)`.
template <class Body, class Args>
[[gnu::visibility("hidden")]] __global__ void __launch_bounds__(Body::threads,
                                                                Body::blocks_per_multiprocessor)
    kernel(__grid_constant__ Args const args) {
  Body::run(device_block{}, args);
}

/// A body whose launch may begin while the one before still runs: it calls wait_for_launch_before.
template <class Body>
concept overlapping = requires { requires Body::overlapping; };

/// Starts kernels on a stream. Neither allocates nor waits; can be captured.
struct stream_launcher {
  ::cudaStream_t stream = nullptr;
  bool can_overlap = false;  ///< the device is of sm_90 or later

  template <class Body, class Args>
  status start(std::int64_t blocks, std::int32_t shared_bytes, Args const& args) const noexcept {
    if (blocks < 1) return {};
    auto* const function = &kernel<Body, Args>;
    constexpr std::int32_t without_asking = 48 << 10;
    if (shared_bytes > without_asking) {
      auto const asked = ::cudaFuncSetAttribute(
          function, ::cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
      if (auto const s = as_status(asked); !s.ok()) return s;
    }
    ::cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(Body::threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
    config.stream = stream;
    ::cudaLaunchAttribute overlap = {};
    overlap.id = ::cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = overlapping<Body> && can_overlap ? 1 : 0;
    return as_status(::cudaLaunchKernelEx(&config, function, args));
  }
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
