// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Products with a weight that is kept in bf16. A few rows (decoding) meet it as it lies: what a
// step waits for is the weight's way from memory, and half the bytes are half the time. More rows
// are worth widening a piece of it to float, into scratch as large as a core's L2 cache, for the
// BLAS: its own product of bf16, where a build has one (Debian's has not), rounds activations, too.
//
// Every sum of the first kind is one chain over ascending elements in as many lanes as a vector
// has: a result's bits depend neither on the slab or the block that it is in nor on the rows beside
// it.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <strata/cache/element.hpp>
#include <strata/thread_pool.hpp>

#include "gemm.hpp"

namespace lm {

/// Up to so many rows meet the weight as it lies.
inline constexpr std::int64_t few_narrow_rows = 8;

namespace detail {

// nvcc reads neither shuffles of vectors by packs nor these pragmas; what it compiles, tests that serve
// on both sides, takes the plain form below for floats, too.
#if !defined(__CUDACC__)

#if defined(__AVX512F__)
inline constexpr int product_bytes = 64;
#elif defined(__AVX__)
inline constexpr int product_bytes = 32;
#else
inline constexpr int product_bytes = 16;
#endif
inline constexpr std::int64_t product_lanes = product_bytes / 4;

/// Vectors of the compilers' own; in memory they need no more alignment than an element.
typedef float product_vector __attribute__((vector_size(product_bytes)));
typedef std::uint32_t product_words __attribute__((vector_size(product_bytes)));
typedef float loaded_floats
    __attribute__((vector_size(product_bytes), aligned(alignof(float)), may_alias));
typedef std::uint32_t loaded_words
    __attribute__((vector_size(product_bytes), aligned(alignof(strata::bfloat16)), may_alias));

/// Elements of bf16 that a vector loads. A word has two of them: the low half, moved up, is the
/// even one as a float, and the word without it the odd one; to widen neighbours takes three times
/// the instructions.
inline constexpr std::int64_t product_pairs = 2 * product_lanes;

/// x in the order that halves of words come in: of each `product_pairs` elements the even ones,
/// then the odd ones. What is left over stays as it is.
inline void split_pairs(float const* x, float* split, std::int64_t in) noexcept {
  std::int64_t i = 0;
  for (; i + product_pairs <= in; i += product_pairs)
    for (std::int64_t j = 0; j < product_lanes; ++j) {
      split[i + j] = x[i + 2 * j];
      split[i + product_lanes + j] = x[i + 2 * j + 1];
    }
  for (; i < in; ++i) split[i] = x[i];
}

/// The sum of all lanes, in every one of them.
template <std::size_t... Lane>
[[gnu::always_inline]] inline product_vector fold(product_vector x,
                                                  std::index_sequence<Lane...>) noexcept {
#if defined(__AVX512F__)
  x += __builtin_shufflevector(x, x, (Lane ^ 8)...);
#endif
#if defined(__AVX__)
  x += __builtin_shufflevector(x, x, (Lane ^ 4)...);
#endif
  x += __builtin_shufflevector(x, x, (Lane ^ 2)...);
  return x + __builtin_shufflevector(x, x, (Lane ^ 1)...);
}

/// Bytes between what is multiplied and what is asked of memory meanwhile. Rows of weights are
/// short runs side by side, which the processor's own guesses follow badly: with this a core of a
/// Zen 3 reads rows of 576 elements at 10.3 instead of 7.2 GB/s, where a plain loop reads 12.5.
inline constexpr std::int64_t look_ahead = 8192;

/// y[r * y_row + o] = beta y + sum of x[r][i] w[o][i] for Rows rows of x, split into pairs, and
/// Outs rows of w, of `in` elements each. Four chains of sums are faster than memory; eight cover
/// the 4 cycles of two FMA ports.
template <int Rows, int Outs>
void dot_block(float const* x, strata::bfloat16 const* w, float* y, std::int64_t y_row,
               std::int64_t in, float beta) noexcept {
  product_vector sum[Rows][Outs] = {};
  auto const whole = in / product_pairs * product_pairs;
  for (std::int64_t i = 0; i < whole; i += product_pairs) {
    auto const* const ahead = reinterpret_cast<char const*>(w + i * Outs) + look_ahead;
#pragma GCC unroll 8
    for (int at = 0; at < Outs * product_bytes; at += 64) __builtin_prefetch(ahead + at);
#pragma GCC unroll 8
    for (int o = 0; o < Outs; ++o) {
      product_words const pairs = *reinterpret_cast<loaded_words const*>(w + o * in + i);
      auto const even = std::bit_cast<product_vector>(pairs << 16);
      auto const odd = std::bit_cast<product_vector>(pairs & 0xFFFF0000U);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        auto const* const from = x + r * in + i;
        sum[r][o] += even * *reinterpret_cast<loaded_floats const*>(from);
        sum[r][o] += odd * *reinterpret_cast<loaded_floats const*>(from + product_lanes);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int o = 0; o < Outs; ++o) {
      auto total = fold(sum[r][o], std::make_index_sequence<std::size_t{product_lanes}>())[0];
      for (auto i = whole; i < in; ++i) total += x[r * in + i] * strata::to_float(w[o * in + i]);
      float& out = y[r * y_row + o];
      out = beta == 0 ? total : beta * out + total;
    }
}

/// The same for `outs` rows of w.
template <int Rows>
void dot_rows(float const* x, strata::bfloat16 const* w, float* y, std::int64_t y_row,
              std::int64_t in, std::int64_t outs, float beta) noexcept {
  constexpr int block = Rows == 1 ? 4 : 8 / Rows;
  std::int64_t o = 0;
  for (; o + block <= outs; o += block)
    dot_block<Rows, block>(x, w + o * in, y + o, y_row, in, beta);
  for (; o < outs; ++o) dot_block<Rows, 1>(x, w + o * in, y + o, y_row, in, beta);
}

/// As many rows at a time as there are blocks for.
inline void dot_rows(float const* x, strata::bfloat16 const* w, float* y, std::int64_t y_row,
                     std::int64_t rows, std::int64_t in, std::int64_t outs, float beta) noexcept {
  while (rows > 0) {
    auto const now = rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
    if (now == 8)
      dot_rows<8>(x, w, y, y_row, in, outs, beta);
    else if (now == 4)
      dot_rows<4>(x, w, y, y_row, in, outs, beta);
    else if (now == 2)
      dot_rows<2>(x, w, y, y_row, in, outs, beta);
    else
      dot_rows<1>(x, w, y, y_row, in, outs, beta);
    x += now * in, y += now * y_row, rows -= now;
  }
}

#endif

/// The same plainly: in double, which nobody waits for.
template <class T>
void split_pairs(T const* x, T* split, std::int64_t in) noexcept {
  for (std::int64_t i = 0; i < in; ++i) split[i] = x[i];
}
template <class T>
void dot_rows(T const* x, strata::bfloat16 const* w, T* y, std::int64_t y_row, std::int64_t rows,
              std::int64_t in, std::int64_t outs, T beta) noexcept {
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < outs; ++o) {
      T total = 0;
      for (std::int64_t i = 0; i < in; ++i)
        total += x[r * in + i] * static_cast<T>(strata::to_float(w[o * in + i]));
      T& out = y[r * y_row + o];
      out = beta == 0 ? total : beta * out + total;
    }
}

/// Rows of w that are widened at a time: 512 KiB of floats, as large as an L2 cache, but no fewer
/// than the BLAS needs. It takes x apart again for each such piece: with half of it 128 rows and
/// w_down of 576 x 1536 come to 54 instead of 59 GFLOP/s, with twice as much to 61.
inline constexpr std::int64_t most_widened = 1 << 17;
constexpr std::int64_t widened_rows(std::int64_t in) noexcept {
  auto const rows = most_widened / in / 8 * 8;
  return rows < 32 ? 32 : rows;
}

}  // namespace detail

/// Elements of a thread's scratch for the products below with weights of up to `in` columns.
constexpr std::int64_t product_scratch(std::int64_t in) noexcept {
  auto const widened = detail::widened_rows(in) * in;
  return widened > detail::most_widened ? widened : detail::most_widened;
}

/// y[rows, out] = x[rows, in] w[out, in]^T + beta y for up to few_narrow_rows rows. Spread over the
/// threads if `spread`, some rows of w at a time, twice as many times as there are threads, so that
/// one that somebody else slows down takes fewer; the same bits. scratch: the calling thread's.
template <class T>
void linear_few_rows(strata::thread_pool& pool, bool spread, T const* x, strata::bfloat16 const* w,
                     T* y, std::int64_t rows, std::int64_t in, std::int64_t out, T beta,
                     T* scratch) noexcept {
  for (std::int64_t r = 0; r < rows; ++r) detail::split_pairs(x + r * in, scratch + r * in, in);
  if (!spread) return detail::dot_rows(scratch, w, y, out, rows, in, out, beta);
  auto const even = num_slabs(num_slabs(out, 2 * pool.num_shares()), 8) * 8;
  auto const outs = even < 1024 ? even : std::int64_t{1024};
  for_tasks(pool, num_slabs(out, outs), [&](std::int64_t task, std::int32_t) {
    auto const begin = task * outs, left = out - begin;
    detail::dot_rows(scratch, w + begin * in, y + begin, out, rows, in, left < outs ? left : outs,
                     beta);
  });
}

/// The same for any number of rows, by the BLAS, in slabs of w as large as its scratch.
/// scratch_of(thread) is that of a thread of the pool, or of `thread` where it is not spread.
template <class T, class ScratchOf>
void linear_widened(strata::thread_pool& pool, bool spread, T const* x, strata::bfloat16 const* w,
                    T* y, std::int64_t rows, std::int64_t in, std::int64_t out, T beta,
                    std::int32_t thread, ScratchOf const& scratch_of) noexcept {
  auto const slab_outs = detail::widened_rows(in);
  auto const one = [&](std::int64_t task, std::int32_t by) {
    auto const begin = task * slab_outs, left = out - begin;
    auto const outs = left < slab_outs ? left : slab_outs;
    T* STRATA_RESTRICT const wide = scratch_of(by);
    strata::bfloat16 const* STRATA_RESTRICT const narrow = w + begin * in;
    for (std::int64_t i = 0; i < outs * in; ++i)
      wide[i] = static_cast<T>(strata::to_float(narrow[i]));
    detail::gemm(CblasNoTrans, CblasTrans, rows, outs, in, x, in, wide, in, beta, y + begin, out);
  };
  auto const count = num_slabs(out, slab_outs);
  if (spread) return for_tasks(pool, count, one);
  for (std::int64_t task = 0; task < count; ++task) one(task, thread);
}

}  // namespace lm
