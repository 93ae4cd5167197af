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
//   what runs                                            measured
//   decode, matrix products (decode_mma.hpp)             compiled, never run on a device
//   prefill, matrix products (prefill_mma.hpp)           compiled, never run on a device
//   forward, plain multiply-adds (decode_fma.hpp)        compiled, never run on a device
//   backward, matrix products (backward_*_mma.hpp)       compiled, never run on a device
//   the same, dQ by atomics (backward_sums_mma.hpp)      compiled, never run on a device
//   backward, plain multiply-adds (backward_fma.hpp)     compiled, never run on a device
//
// All of it runs in tests, block by block, on the host.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include <strata/config.hpp>
#include <strata/cuda/detail/attention_on.hpp>
#include <strata/cuda/detail/launch.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::experimental {

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
  auto const asked = ::cudaDeviceGetAttribute(&count, ::cudaDevAttrMultiProcessorCount, device);
  if (auto const s = detail::as_status(asked); !s.ok()) return s;
  auto const asked_too =
      ::cudaDeviceGetAttribute(&shared, ::cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (auto const s = detail::as_status(asked_too); !s.ok()) return s;
  auto const asked_last =
      ::cudaDeviceGetAttribute(&major, ::cudaDevAttrComputeCapabilityMajor, device);
  if (auto const s = detail::as_status(asked_last); !s.ok()) return s;
  Kernel kernel;
  kernel.shared_bytes = shared;
  kernel.launcher = {stream, major >= 9};
  kernel.bounds = bounds;
  kernel.split_keys = split_keys;
  kernel.multiprocessors = count;
  return kernel;
}

}  // namespace cuda::experimental

STRATA_NAMESPACE_END
