// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernels of a forward call: a body, the threads of a block, and how many blocks a
// multiprocessor holds, which is what the compiler cuts registers to.
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/decode_fma.hpp>
#include <strata/cuda/detail/decode_mma.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/prefill_mma.hpp>
#include <strata/cuda/detail/thread_block.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// 8 states at once are 32 registers of a lane: with 64 in all they would be spilled.
struct combine_kernel {
  static constexpr std::int32_t threads = decode_threads, blocks_per_multiprocessor = 4;
  static constexpr bool overlapping = true;  // it finds its row blocks while keys are still read
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, forward_args<T, View> const& args) {
    combine_body(block, args, threads);
  }
};

/// 107 registers for queries and a cache in bfloat16, 127 in float.
template <std::int32_t Chunks>
struct decode_fma_kernel {
  static constexpr std::int32_t threads = decode_threads;
  static constexpr std::int32_t blocks_per_multiprocessor = Chunks == 1 ? 4 : 2;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, forward_args<T, View> const& args) {
    decode_fma_body<Chunks>(block, args);
  }
};

/// 208 registers at head_dim 128, 159 at 64, in 16 bits.
template <std::int32_t Dim>
struct decode_mma_kernel {
  static constexpr std::int32_t threads = decode_threads, blocks_per_multiprocessor = 2;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, forward_args<T, View> const& args) {
    decode_mma_body<Dim>(block, args);
  }
};

/// Two blocks where shared memory lets them: sm_90.
template <std::int32_t Dim>
struct prefill_mma_kernel {
  static constexpr std::int32_t threads = prefill_threads, blocks_per_multiprocessor = 2;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, forward_args<T, View> const& args) {
    prefill_mma_body<Dim>(block, args);
  }
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
