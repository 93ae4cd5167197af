// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The attention kernel of CUDA devices with its launches on the host, thread by thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>

#include <strata/cuda/detail/attention_on.hpp>
#include <strata/status.hpp>

#include "simt.hpp"

namespace support {

struct simt_launcher {
  simt::order order = simt::order::ascending;
  simt::arrival copies = simt::arrival::at_wait;
  /// Of every launch: for kernels whose blocks take their work in turn, however many they are. 0:
  /// as many as the call starts.
  std::int32_t blocks_instead = 0;
  std::int32_t most_shared = 163 << 10;  ///< bytes of a block: those of sm_80
  simt::traffic* moved = nullptr;        ///< is added to
  std::int32_t* second_tries = nullptr;  ///< counts matrix kernels that fell back on the plain path

  template <class Body, class Args>
  strata::status start(std::int64_t blocks, std::int32_t shared_bytes,
                       Args const& args) const noexcept {
    if (shared_bytes > most_shared) return {strata::errc::device_failure, {}, shared_bytes, 0};
    try {
      auto const t = simt::launch(
          {blocks_instead > 0 ? blocks_instead : static_cast<std::int32_t>(blocks), Body::threads,
           shared_bytes},
          [&](simt::block const& block) { Body::run(block, args); }, order, copies);
      if (moved != nullptr) *moved = *moved + t;
      if (second_tries != nullptr && t.async_bytes > 0 && t.loaded_bytes > 0) ++*second_tries;
      return {};
    } catch (std::exception const& e) {
      std::fprintf(stderr, "%s\n", e.what());
      return {strata::errc::device_failure};
    }
  }
};

/// A device of two multiprocessors.
template <std::int32_t... Dims>
strata::cuda::detail::attention_on<simt_launcher, Dims...> simt_attention(
    std::int32_t split_keys = 0, std::int32_t multiprocessors = 2,
    simt::order order = simt::order::ascending) {
  strata::cuda::detail::attention_on<simt_launcher, Dims...> kernel;
  kernel.launcher.order = order;
  kernel.split_keys = split_keys;
  kernel.multiprocessors = multiprocessors;
  return kernel;
}

}  // namespace support
