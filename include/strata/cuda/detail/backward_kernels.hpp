// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernels of a backward call, in the order of their launches: facts of all pairs, then
// gradients of tokens, then those of queries, or what their sums come to.
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/backward_fma.hpp>
#include <strata/cuda/detail/backward_pairs.hpp>
#include <strata/cuda/detail/backward_queries_mma.hpp>
#include <strata/cuda/detail/backward_sums_mma.hpp>
#include <strata/cuda/detail/backward_tokens_mma.hpp>
#include <strata/cuda/detail/thread_block.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

struct backward_prepare_kernel {
  static constexpr std::int32_t threads = prepare_threads, blocks_per_multiprocessor = 8;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, backward_args<T, View> const& args) {
    backward_prepare_body(block, args);
  }
};

/// Sums: dQ is added to sums, for backward_sums_kernel.
template <std::int32_t Dim, bool Sums>
struct backward_tokens_mma_kernel {
  static constexpr std::int32_t threads = backward_threads, blocks_per_multiprocessor = 1;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, backward_args<T, View> const& args) {
    backward_tokens_mma_body<Dim, Sums>(block, args);
  }
};

template <std::int32_t Dim>
struct backward_sums_kernel {
  static constexpr std::int32_t threads = backward_sums_threads, blocks_per_multiprocessor = 3;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, backward_args<T, View> const& args) {
    backward_sums_body<Dim>(block, args);
  }
};

template <std::int32_t Dim>
struct backward_queries_mma_kernel {
  static constexpr std::int32_t threads = backward_threads, blocks_per_multiprocessor = 1;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, backward_args<T, View> const& args) {
    backward_queries_mma_body<Dim>(block, args);
  }
};

template <std::int32_t Chunks>
struct backward_tokens_fma_kernel {
  static constexpr std::int32_t threads = backward_fma_threads, blocks_per_multiprocessor = 2;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, backward_args<T, View> const& args) {
    backward_tokens_fma_body<Chunks>(block, args);
  }
};

template <std::int32_t Chunks>
struct backward_queries_fma_kernel {
  static constexpr std::int32_t threads = backward_fma_threads, blocks_per_multiprocessor = 2;
  template <thread_block Block, class T, class View>
  STRATA_DEVICE static void run(Block const& block, backward_args<T, View> const& args) {
    backward_queries_fma_body<Chunks>(block, args);
  }
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
