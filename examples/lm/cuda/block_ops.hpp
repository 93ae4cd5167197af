// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the bodies of strata-lm's kernels share. A body is a struct: its members are the arguments,
// `size()` says how many blocks of how many threads run it, and the call operator is one thread's
// work, through strata's thread_block. launch.cuh runs it on a device; the tests run it thread by
// thread on the host.
//
// Tensors begin on 16-byte boundaries; numbers are bf16 or float, sums are float. All sums have one
// order, whatever the device.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>

#include <strata/cache/element.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/math.hpp>

namespace lm::cuda {

using strata::bfloat16;
using strata::cuda::detail::chunk;
using strata::cuda::detail::lane_of;
using strata::cuda::detail::thread_block;
using strata::cuda::detail::warp_of;
using strata::cuda::detail::warp_size;

/// Elements of the tensors of a model on a device.
template <class T>
concept number = std::same_as<T, float> || std::same_as<T, bfloat16>;

/// How a body is run.
struct grid {
  std::int64_t blocks = 1;
  std::int32_t threads = 256;
  std::int64_t shared_bytes = 0;
};

inline constexpr std::int32_t block_threads = 256;
inline constexpr std::int32_t block_warps = block_threads / warp_size;
inline constexpr std::int32_t wide = 8;  ///< numbers that a thread moves at once where it can

/// Whether rows of n numbers, one after the other, can be moved `wide` at a time.
STRATA_HOST_DEVICE constexpr bool in_wides(std::int64_t n) noexcept { return n % wide == 0; }

namespace detail {

template <class Word>
STRATA_DEVICE inline Word load_word(void const* from) {
#if defined(__CUDA_ARCH__)
  return *static_cast<Word const*>(from);  // one access
#else
  STRATA_ASSERT(reinterpret_cast<std::uintptr_t>(from) % sizeof(Word) == 0);
  Word word;
  std::memcpy(&word, from, sizeof(Word));
  return word;
#endif
}
template <class Word>
STRATA_DEVICE inline void store_word(void* to, Word const& word) {
#if defined(__CUDA_ARCH__)
  *static_cast<Word*>(to) = word;
#else
  STRATA_ASSERT(reinterpret_cast<std::uintptr_t>(to) % sizeof(Word) == 0);
  std::memcpy(to, &word, sizeof(Word));
#endif
}

STRATA_DEVICE inline void unpack(std::uint32_t word, float* out) {
  out[0] = strata::detail::bit_cast<float>(word << 16);
  out[1] = strata::detail::bit_cast<float>(word & 0xFFFF0000U);
}

}  // namespace detail

/// N numbers from memory as floats. N: 1, 2 (an even place) or `wide` (a multiple of it).
template <int N, number T>
STRATA_DEVICE inline void load(T const* from, float (&out)[N]) {
  if constexpr (N == 1) {
    out[0] = strata::detail::widen(*from);
  } else if constexpr (N == 2 && std::same_as<T, bfloat16>) {
    detail::unpack(detail::load_word<std::uint32_t>(from), out);
  } else if constexpr (N == 2) {
    for (int i = 0; i < 2; ++i) out[i] = from[i];
  } else if constexpr (std::same_as<T, bfloat16>) {
    auto const c = detail::load_word<chunk>(from);
    for (int i = 0; i < 4; ++i) detail::unpack(c.words[i], out + 2 * i);
  } else {
    for (int half = 0; half < 2; ++half) {
      auto const c = detail::load_word<chunk>(from + 4 * half);
      for (int i = 0; i < 4; ++i) out[4 * half + i] = strata::detail::bit_cast<float>(c.words[i]);
    }
  }
}

/// The same way back, rounded to nearest.
template <int N, number T, thread_block Block>
STRATA_DEVICE inline void store(Block const& block, float const (&x)[N], T* to) {
  if constexpr (N == 1) {
    *to = strata::detail::narrow<T>(x[0]);
  } else if constexpr (N == 2 && std::same_as<T, bfloat16>) {
    detail::store_word(to, block.template pack<bfloat16>(x[0], x[1]));
  } else if constexpr (N == 2) {
    for (int i = 0; i < 2; ++i) to[i] = x[i];
  } else if constexpr (std::same_as<T, bfloat16>) {
    chunk c;
    for (int i = 0; i < 4; ++i) c.words[i] = block.template pack<bfloat16>(x[2 * i], x[2 * i + 1]);
    detail::store_word(to, c);
  } else {
    for (int half = 0; half < 2; ++half) {
      chunk c;
      for (int i = 0; i < 4; ++i)
        c.words[i] = strata::detail::bit_cast<std::uint32_t>(x[4 * half + i]);
      detail::store_word(to + 4 * half, c);
    }
  }
}

struct add_up {
  template <class T>
  STRATA_HOST_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
/// NaN wins, so that it is not overlooked.
struct take_larger {
  STRATA_HOST_DEVICE float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

/// x of all lanes joined; every lane gets it.
template <class T, class Join, thread_block Block>
STRATA_DEVICE inline T warp_reduce(Block const& block, T x, Join const& join) {
  for (std::int32_t mask = warp_size / 2; mask > 0; mask /= 2)
    x = join(x, block.shuffle_xor(x, mask));
  return x;
}

/// x of all threads of a block of block_threads joined; every thread gets it. Takes reduce_bytes of
/// shared memory, from its beginning.
inline constexpr std::int64_t reduce_bytes = block_warps * 8;
template <class T, class Join, thread_block Block>
STRATA_DEVICE inline T block_reduce(Block const& block, T x, Join const& join) {
  static_assert(sizeof(T) <= 8);
  auto* const of_warp = reinterpret_cast<T*>(block.memory());
  x = warp_reduce(block, x, join);
  block.sync();  // the last reduction has been read
  if (lane_of(block) == 0) of_warp[warp_of(block)] = x;
  block.sync();
  T all = of_warp[0];
  for (std::int32_t w = 1; w < block_warps; ++w) all = join(all, of_warp[w]);
  return all;
}

/// The threads that share a row: a warp where rows are narrow, else the whole block.
struct row_team {
  std::int64_t row = 0;
  std::int32_t member = 0;
  std::int32_t members = 0;

  static constexpr std::int64_t narrow = 1024;

  static grid size(std::int64_t rows, std::int64_t dim) {
    auto const blocks = dim > narrow ? rows : strata::detail::ceil_divide(rows, std::int64_t{8});
    static_assert(block_warps == 8);
    return {blocks, block_threads, reduce_bytes};
  }
  template <thread_block Block>
  STRATA_DEVICE static row_team of(Block const& block, std::int64_t dim) {
    if (dim > narrow) return {block.index(), block.thread(), block_threads};
    return {std::int64_t{block.index()} * block_warps + warp_of(block), lane_of(block), warp_size};
  }
  template <class T, class Join, thread_block Block>
  STRATA_DEVICE T reduce(Block const& block, T x, Join const& join) const {
    return members == warp_size ? warp_reduce(block, x, join) : block_reduce(block, x, join);
  }
  /// Calls body(column) for this thread's first columns of N of a row.
  template <int N, class Body>
  STRATA_DEVICE void for_columns(std::int64_t dim, Body const& body) const {
    for (auto c = std::int64_t{member} * N; c < dim; c += std::int64_t{members} * N) body(c);
  }
};

/// exp(x) by the block's exp2.
template <thread_block Block>
STRATA_DEVICE inline float exponential(Block const& block, float x) {
  return block.exp2(x * 1.4426950408889634F);
}

}  // namespace lm::cuda
