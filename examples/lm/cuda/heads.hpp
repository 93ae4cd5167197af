// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Query and key heads between their projection and attention: QK-norm where the model has one, and
// RoPE; and the way back. A warp for each head.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/block_ops.hpp"

namespace lm::cuda {

/// Where rows of heads stand, and by what they turn: pairs (i, i + head_dim / 2).
struct head_turns {
  float const* cos = nullptr;               ///< [positions, head_dim / 2]; null: nothing turns
  float const* sin = nullptr;               ///< the same
  std::int32_t const* positions = nullptr;  ///< [rows], or null: row % length
  std::int64_t length = 1;
  std::int64_t rows = 0;
  std::int32_t heads = 0;
  std::int32_t head_dim = 0;

  STRATA_HOST_DEVICE std::int32_t half() const { return head_dim / 2; }
  /// Two columns at a time: a warp then reads a head of 128 in two whole sweeps.
  STRATA_HOST_DEVICE bool in_pairs() const { return half() % 2 == 0; }
  grid size() const {
    return {strata::detail::ceil_divide(rows * heads, std::int64_t{block_warps}), block_threads, 0};
  }
  template <thread_block Block>
  STRATA_DEVICE std::int64_t head_of(Block const& block) const {
    return std::int64_t{block.index()} * block_warps + warp_of(block);
  }
  /// Of N columns from c on of the first half, for a row.
  template <int N>
  STRATA_DEVICE void angles(std::int64_t row, std::int32_t c, float (&co)[N],
                            float (&si)[N]) const {
    if (cos == nullptr) {
      for (int i = 0; i < N; ++i) co[i] = 1, si[i] = 0;
      return;
    }
    auto const position = positions == nullptr ? row % length : std::int64_t{positions[row]};
    load(cos + position * half() + c, co);
    load(sin + position * half() + c, si);
  }
  /// Turns, or with sign -1 turns back.
  template <int N>
  STRATA_DEVICE static void turn(float (&low)[N], float (&high)[N], float const (&co)[N],
                                 float const (&si)[N], float sign) {
    for (int i = 0; i < N; ++i) {
      float const a = low[i], b = high[i], s = sign * si[i];
      low[i] = a * co[i] - b * s;
      high[i] = b * co[i] + a * s;
    }
  }
};

/// out = RoPE(norm(raw)); without a gain there is no norm. `out` may be `raw` where rows are dense.
struct turn_heads {
  head_turns at;
  bfloat16 const* raw = nullptr;   ///< [rows, heads, head_dim], rows `raw_stride` apart
  std::int64_t raw_stride = 0;     ///< in elements, even
  bfloat16 const* gain = nullptr;  ///< [head_dim], or null
  bfloat16* out = nullptr;         ///< [rows, heads, head_dim]
  float* inverse_rms = nullptr;    ///< [rows, heads], or null
  float epsilon = 0;

  grid size() const { return at.size(); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    at.in_pairs() ? run<2>(block) : run<1>(block);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    auto const head = at.head_of(block);
    if (head >= at.rows * at.heads) return;
    auto const row = head / at.heads;
    auto const* const in = raw + row * raw_stride + head % at.heads * at.head_dim;
    auto* const to = out + head * at.head_dim;
    auto const half = at.half();
    float const inverse = gain == nullptr ? 1.F : inverse_of<N>(block, in);
    if (gain != nullptr && inverse_rms != nullptr && lane_of(block) == 0)
      inverse_rms[head] = inverse;
    for (auto c = lane_of(block) * N; c < half; c += warp_size * N) {
      float low[N], high[N], co[N], si[N];
      load(in + c, low);
      load(in + half + c, high);
      if (gain != nullptr) {
        float g[N], h[N];
        load(gain + c, g);
        load(gain + half + c, h);
        for (int i = 0; i < N; ++i) low[i] *= inverse * g[i];
        for (int i = 0; i < N; ++i) high[i] *= inverse * h[i];
      }
      at.angles(row, c, co, si);
      head_turns::turn(low, high, co, si, 1);
      store(block, low, to + c);
      store(block, high, to + half + c);
    }
  }

  template <int N, thread_block Block>
  STRATA_DEVICE float inverse_of(Block const& block, bfloat16 const* in) const {
    float squares = 0;
    for (auto c = lane_of(block) * N; c < at.head_dim; c += warp_size * N) {
      float x[N];
      load(in + c, x);
      for (auto const v : x) squares += v * v;
    }
    squares = warp_reduce(block, squares, add_up());
    return 1 / std::sqrt(squares / static_cast<float>(at.head_dim) + epsilon);
  }
};

/// Backward of turn_heads: d, of what attention read, becomes d_raw, of what was projected. The
/// gain's gradient is column_sums' with head_gain_term.
template <number D>
struct turn_heads_backward {
  head_turns at;
  D const* d = nullptr;                ///< [rows, heads, head_dim]
  bfloat16 const* raw = nullptr;       ///< [rows, heads, head_dim], with a gain
  float const* inverse_rms = nullptr;  ///< [rows, heads], with a gain
  bfloat16 const* gain = nullptr;      ///< [head_dim], or null
  bfloat16* d_raw = nullptr;           ///< [rows, heads, head_dim]; may be d

  grid size() const { return at.size(); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    at.in_pairs() ? run<2>(block) : run<1>(block);
  }

 private:
  template <int N>
  STRATA_DEVICE void turned_back(std::int64_t head, std::int32_t c, float (&low)[N],
                                 float (&high)[N]) const {
    float co[N], si[N];
    load(d + head * at.head_dim + c, low);
    load(d + head * at.head_dim + at.half() + c, high);
    at.angles(head / at.heads, c, co, si);
    head_turns::turn(low, high, co, si, -1);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    auto const head = at.head_of(block);
    if (head >= at.rows * at.heads) return;
    auto const half = at.half();
    auto const first = head * at.head_dim;
    float const slope = gain == nullptr ? 0.F : slope_of<N>(block, head);
    for (auto c = lane_of(block) * N; c < half; c += warp_size * N) {
      float low[N], high[N];
      turned_back(head, c, low, high);
      if (gain != nullptr) {
        through_norm<N>(low, head, c, slope);
        through_norm<N>(high, head, half + c, slope);
      }
      store(block, low, d_raw + first + c);
      store(block, high, d_raw + first + half + c);
    }
  }

  template <int N>
  STRATA_DEVICE void through_norm(float (&x)[N], std::int64_t head, std::int32_t c,
                                  float slope) const {
    float in[N], g[N];
    load(raw + head * at.head_dim + c, in);
    load(gain + c, g);
    for (int i = 0; i < N; ++i) x[i] = inverse_rms[head] * (x[i] * g[i] - in[i] * slope);
  }

  template <int N, thread_block Block>
  STRATA_DEVICE float slope_of(Block const& block, std::int64_t head) const {
    auto const half = at.half();
    float dot = 0;
    for (auto c = lane_of(block) * N; c < half; c += warp_size * N) {
      float low[N], high[N], in[N], g[N];
      turned_back(head, c, low, high);
      load(raw + head * at.head_dim + c, in);
      load(gain + c, g);
      for (int i = 0; i < N; ++i) dot += low[i] * g[i] * in[i];
      load(raw + head * at.head_dim + half + c, in);
      load(gain + half + c, g);
      for (int i = 0; i < N; ++i) dot += high[i] * g[i] * in[i];
    }
    dot = warp_reduce(block, dot, add_up());
    return dot * inverse_rms[head] * inverse_rms[head] / static_cast<float>(at.head_dim);
  }
};

/// What a head adds to the gradient of the norm's gain, for column_sums over [rows * heads] rows of
/// head_dim columns.
template <number D>
struct head_gain_term {
  head_turns at;
  D const* d = nullptr;                ///< [rows, heads, head_dim], of what attention read
  bfloat16 const* raw = nullptr;       ///< [rows, heads, head_dim]
  float const* inverse_rms = nullptr;  ///< [rows, heads]

  bool wides() const { return in_wides(at.half()); }
  template <int N>
  STRATA_DEVICE void add(std::int64_t head, std::int64_t column, float (&sum)[N]) const {
    auto const half = at.half();
    bool const upper = column >= half;
    auto const c = static_cast<std::int32_t>(upper ? column - half : column);
    float low[N], high[N], co[N], si[N], in[N];
    load(d + head * at.head_dim + c, low);
    load(d + head * at.head_dim + half + c, high);
    at.angles(head / at.heads, c, co, si);
    head_turns::turn(low, high, co, si, -1);
    load(raw + head * at.head_dim + column, in);
    for (int i = 0; i < N; ++i) sum[i] += (upper ? high[i] : low[i]) * in[i] * inverse_rms[head];
  }
};

}  // namespace lm::cuda
