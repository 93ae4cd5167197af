// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Tests of the host on a device: what `new` gives is memory that both see, so that vectors, views
// and tables can be handed over as they are; and a launcher that waits, so that results can be
// read.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include <strata/cuda/attention.cuh>
#include <strata/status.hpp>

namespace support {

/// Whether this machine has a device.
inline bool device_found() {
  int count = 0;
  return ::cudaGetDeviceCount(&count) == ::cudaSuccess && count > 0;
}

struct waiting_launcher {
  template <class Body, class Args>
  strata::status start(std::int64_t blocks, std::int32_t shared_bytes,
                       Args const& args) const noexcept {
    strata::cuda::detail::stream_launcher const stream;
    if (auto const s = stream.start<Body>(blocks, shared_bytes, args); !s.ok()) return s;
    return strata::cuda::detail::as_status(::cudaDeviceSynchronize());
  }
};

template <std::int32_t... Dims>
strata::cuda::detail::attention_on<waiting_launcher, Dims...> device_attention(
    std::int32_t split_keys = 0, std::int32_t multiprocessors = 0) {
  auto const found = strata::cuda::make_attention<>(nullptr);
  strata::cuda::detail::attention_on<waiting_launcher, Dims...> kernel;
  kernel.split_keys = split_keys;
  kernel.multiprocessors =
      multiprocessors > 0 || !found.ok() ? multiprocessors : found->multiprocessors;
  if (found.ok()) kernel.shared_bytes = found->shared_bytes;
  return kernel;
}

}  // namespace support
