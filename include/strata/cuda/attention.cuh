// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention on a CUDA device: an attention kernel like those of the CPU, whose pointers, those of
// lengths, offsets and tables among them, are the device's. Calls go to a stream, allocate nothing,
// wait for nothing and can be captured: between two replays of a graph what lies behind pointers
// may change (lengths, offsets, rows, block tables), up to the bounds. A call refuses more rows
// than these where the host knows how many there are, as it does of what step_mirror.cuh gives; of
// a replay nobody asks. Other launches of a layer hold numbers of rows: what a graph of a whole
// step serves, step_mirror.cuh says.
//
// On an H100 (CUDA 13.0; bench/results/cuda_attention.json, against PyTorch 2.11's best backend and
// its FlashAttention-2, bf16, 32 query heads, 8 KV heads of 128):
//
//   what runs                                            measured
//   decode, matrix products (decode_mma.hpp)             0.84 to 0.91 of what the device reads;
//                                                        0.87 to 0.94 of cuDNN, alone 0.53 to 0.91
//   prefill, matrix products (prefill_mma.hpp)           159 to 292 TFLOP/s, 0.75 to 0.86 of
//                                                        FlashAttention-2, 0.38 to 0.49 of cuDNN
//   forward, plain multiply-adds (decode_fma.hpp)        0.86 of what it reads, 32 KV heads
//   backward, matrix products (backward_*_mma.hpp)       73 to 130 TFLOP/s, 0.41 to 0.43 of FA-2
//   the same, dQ by atomics (backward_sums_mma.hpp)      76 to 161 TFLOP/s, 0.42 to 0.52 of FA-2
//   backward, plain multiply-adds (backward_fma.hpp)     right, not timed
//
// All of it runs in tests, block by block, on the host, too.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include <strata/config.hpp>
#include <strata/cuda/detail/attention_on.hpp>
#include <strata/cuda/detail/launch.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

/// Dims: the head_dims that have kernels of matrix products, where queries have 16 bits, K and V
/// are made for them (of the queries' type, int8 with scales apart, or fp8) and rows lie on 16-byte
/// boundaries. All others, up to 1024, take the plain path. Each of them costs some 3 s of nvcc for
/// every pair of a query type and a view.
template <std::int32_t... Dims>
using basic_attention = detail::attention_on<detail::stream_launcher, Dims...>;

using attention = basic_attention<64, 128>;

/// An attention kernel for the current device. `bounds` have to be given where offsets lie on the
/// device; `split_keys`: see attention_on, as for what else may be set: `deterministic`, which
/// backward is, or faster.
template <class Kernel = attention>
result<Kernel> make_attention(::cudaStream_t stream, launch_bounds const& bounds = {},
                              std::int32_t split_keys = 0) noexcept {
  int device = 0, count = 0, shared = 0, major = 0;
  if (auto const s = detail::as_status(::cudaGetDevice(&device)); !s.ok()) return s;
  auto const ask = [device](::cudaDeviceAttr what, int& value) {
    return detail::as_status(::cudaDeviceGetAttribute(&value, what, device));
  };
  if (auto const s = ask(::cudaDevAttrMultiProcessorCount, count); !s.ok()) return s;
  if (auto const s = ask(::cudaDevAttrMaxSharedMemoryPerBlockOptin, shared); !s.ok()) return s;
  if (auto const s = ask(::cudaDevAttrComputeCapabilityMajor, major); !s.ok()) return s;
  Kernel kernel;
  kernel.shared_bytes = shared;
  kernel.launcher = {stream, major >= 9};
  kernel.bounds = bounds;
  kernel.split_keys = split_keys;
  kernel.multiprocessors = count;
  return kernel;
}

}  // namespace cuda

STRATA_NAMESPACE_END
