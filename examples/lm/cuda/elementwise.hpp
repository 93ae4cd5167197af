// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Number by number: SwiGLU and its way back, sums, roundings, noise.
#pragma once

#include <cmath>
#include <cstdint>

#include <strata/random.hpp>

#include "cuda/block_ops.hpp"
#include "dropout.hpp"

namespace lm::cuda {
namespace detail {

/// A thread for `wide` numbers. The last thread's, where the count does not divide, go one by one.
inline grid flat_grid(std::int64_t count) {
  return {strata::detail::ceil_divide(count, std::int64_t{block_threads} * wide), block_threads, 0};
}

/// Calls body.template operator()<N>(first) for this thread's numbers.
template <thread_block Block, class Body>
STRATA_DEVICE inline void for_numbers(Block const& block, std::int64_t count, Body const& body) {
  auto const first = (std::int64_t{block.index()} * block_threads + block.thread()) * wide;
  if (first + wide <= count) return body.template at<wide>(block, first);
  for (auto i = first; i < count; ++i) body.template at<1>(block, i);
}

/// The same for [rows, columns]: wide only where columns and rows that lie `stride` apart allow it.
template <thread_block Block, class Body>
STRATA_DEVICE inline void for_matrix(Block const& block, std::int64_t rows, std::int64_t columns,
                                     std::int64_t stride, Body const& body) {
  auto const first = (std::int64_t{block.index()} * block_threads + block.thread()) * wide;
  auto const count = rows * columns;
  if (in_wides(columns) && in_wides(stride)) {
    if (first < count) body.template at<wide>(block, first);
  } else {
    for (auto i = first; i < first + wide && i < count; ++i) body.template at<1>(block, i);
  }
}

template <thread_block Block>
STRATA_DEVICE inline float sigmoid(Block const& block, float x) {
  return 1 / (1 + exponential(block, -x));
}

}  // namespace detail

/// act = gate sigmoid(gate) up.
struct swiglu {
  bfloat16 const* gate = nullptr;  ///< [rows, columns], rows `stride` apart
  bfloat16 const* up = nullptr;    ///< the same
  bfloat16* act = nullptr;         ///< [rows, columns]
  std::int64_t rows = 0, columns = 0, stride = 0;

  grid size() const { return detail::flat_grid(rows * columns); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    detail::for_matrix(block, rows, columns, stride, *this);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void at(Block const& block, std::int64_t i) const {
    auto const from = i / columns * stride + i % columns;
    float g[N], u[N];
    load(gate + from, g);
    load(up + from, u);
    for (int j = 0; j < N; ++j) g[j] *= detail::sigmoid(block, g[j]) * u[j];
    store(block, g, act + i);
  }
};

/// Backward of swiglu; writes act once more, over d_act. No other two overlap.
struct swiglu_backward {
  bfloat16 const* gate = nullptr;      ///< [rows, columns], rows `stride` apart
  bfloat16 const* up = nullptr;        ///< the same
  bfloat16* d_act_then_act = nullptr;  ///< [rows, columns]
  bfloat16* d_gate = nullptr;          ///< [rows, columns], rows `stride` apart
  bfloat16* d_up = nullptr;            ///< the same
  std::int64_t rows = 0, columns = 0, stride = 0;

  grid size() const { return detail::flat_grid(rows * columns); }
  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    detail::for_matrix(block, rows, columns, stride, *this);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void at(Block const& block, std::int64_t i) const {
    auto const from = i / columns * stride + i % columns;
    float g[N], u[N], d[N];
    load(gate + from, g);
    load(up + from, u);
    load(d_act_then_act + i, d);
    for (int j = 0; j < N; ++j) {
      float const s = detail::sigmoid(block, g[j]);
      float const silu = g[j] * s, slope = s * (1 + g[j] * (1 - s));
      g[j] = d[j] * u[j] * slope;
      float const act = silu * u[j];
      u[j] = d[j] * silu;
      d[j] = act;
    }
    store(block, g, d_gate + from);
    store(block, u, d_up + from);
    store(block, d, d_act_then_act + i);
  }
};

/// out = a + factor b.
struct add_scaled {
  bfloat16 const* a = nullptr;  ///< [count]
  bfloat16 const* b = nullptr;  ///< [count]
  float factor = 1;
  bfloat16* out = nullptr;  ///< [count]; may be a or b
  std::int64_t count = 0;

  grid size() const { return detail::flat_grid(count); }
  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    detail::for_numbers(block, count, *this);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void at(Block const& block, std::int64_t first) const {
    float x[N], y[N];
    load(a + first, x);
    load(b + first, y);
    for (int i = 0; i < N; ++i) x[i] += factor * y[i];
    store(block, x, out + first);
  }
};

/// to = from, rounded where that is needed.
template <number From, number To>
struct cast {
  From const* from = nullptr;  ///< [count]
  To* to = nullptr;            ///< [count]
  std::int64_t count = 0;

  grid size() const { return detail::flat_grid(count); }
  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    detail::for_numbers(block, count, *this);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void at(Block const& block, std::int64_t first) const {
    float x[N];
    load(from + first, x);
    store(block, x, to + first);
  }
};

/// dropout.hpp's `drop` of all of a place, in place.
template <number T>
struct drop_numbers {
  dropout what;
  std::uint32_t place = 0;
  T* x = nullptr;  ///< [count]
  std::int64_t count = 0;

  grid size() const { return detail::flat_grid(count); }
  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    detail::for_numbers(block, count, *this);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void at(Block const& block, std::int64_t first) const {
    static_assert(wide == dropout::block);
    float y[N], factors[dropout::block];
    load(x + first, y);
    what.factors(place, first / wide, factors);
    for (int i = 0; i < N; ++i) y[i] *= factors[(first + i) % wide];
    store(block, y, x + first);
  }
};

/// mean + noise of this deviation, uniform: weights and caches of benches, which cost no time on
/// the host. Eight numbers of 16 bits come from draw_words({seed}, stream, weights, index / 8).
struct fill_noise {
  bfloat16* to = nullptr;  ///< [count]
  std::int64_t count = 0;
  std::uint64_t seed = 0;
  std::uint32_t stream = 0;
  float deviation = 1;
  float mean = 0;

  grid size() const { return detail::flat_grid(count); }
  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    detail::for_numbers(block, count, *this);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void at(Block const& block, std::int64_t first) const {
    strata::draw_key key;
    key.seed = seed;
    auto const words = strata::draw_words(key, stream, strata::draw_purpose::weights,
                                          static_cast<std::uint32_t>(first / wide));
    float const scale = deviation * 1.7320508F / 32768;  // of a uniform number from -1 to 1
    float x[N];
    for (int i = 0; i < N; ++i) {
      auto const bits = half_word(words, static_cast<std::int32_t>((first + i) % wide));
      x[i] = mean + scale * (static_cast<float>(bits) - 32767.5F);
    }
    store(block, x, to + first);
  }
};

/// Reads memory and keeps a sum of each part, which nobody needs: how fast a device reads.
struct read_memory {
  static constexpr std::int64_t reads = 16;  // of a thread, all under way at the same time
  static constexpr std::int64_t block_bytes = block_threads * reads * 16;

  chunk const* from = nullptr;    ///< `bytes`
  std::uint32_t* sums = nullptr;  ///< [bytes / block_bytes]
  std::int64_t bytes = 0;         ///< a multiple of block_bytes

  grid size() const { return {bytes / block_bytes, block_threads, reduce_bytes}; }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    auto const* const own = from + std::int64_t{block.index()} * block_threads * reads;
    std::uint32_t sum = 0;
    for (std::int64_t i = 0; i < reads; ++i) {
      auto const c =
          block.load(reinterpret_cast<std::byte const*>(own + i * block_threads + block.thread()));
      for (auto const word : c.words) sum += word;
    }
    sum = block_reduce(block, sum, add_up());
    if (block.thread() == 0) sums[block.index()] = sum;
  }
};

}  // namespace lm::cuda
