// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of the residual stream: which of them, their norm, and the norm's way back.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/block_ops.hpp"

namespace lm::cuda {

/// to[i] = from[indices[i]]: the embedding of tokens, rows that stay alive, rows that want logits.
template <number T>
struct gather_rows {
  T const* from = nullptr;                ///< [.., dim]
  std::int32_t const* indices = nullptr;  ///< [rows]
  T* to = nullptr;                        ///< [rows, dim]; apart from `from`
  std::int64_t rows = 0, dim = 0;

  grid size() const { return row_team::size(rows, dim); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    in_wides(dim) ? run<wide>(block) : run<1>(block);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    row_team const team = row_team::of(block, dim);
    if (team.row >= rows) return;
    auto const* const row = from + std::int64_t{indices[team.row]} * dim;
    team.for_columns<N>(dim, [&](std::int64_t c) {
      float x[N];
      load(row + c, x);
      store(block, x, to + team.row * dim + c);
    });
  }
};

/// y = x / rms(x) * gain, row by row. With `add`, x + add, rounded to bf16, takes the place of x
/// and is kept in `sum`, which may be x.
struct rms_norm {
  bfloat16 const* x = nullptr;     ///< [rows, dim]
  bfloat16 const* add = nullptr;   ///< [rows, dim], or null
  bfloat16* sum = nullptr;         ///< [rows, dim], with `add`
  bfloat16 const* gain = nullptr;  ///< [dim]
  bfloat16* y = nullptr;           ///< [rows, dim]
  float* inverse_rms = nullptr;    ///< [rows], or null
  std::int64_t rows = 0, dim = 0;
  float epsilon = 0;

  grid size() const { return row_team::size(rows, dim); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    in_wides(dim) ? run<wide>(block) : run<1>(block);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    row_team const team = row_team::of(block, dim);
    if (team.row >= rows) return;
    auto const at = team.row * dim;
    float squares = 0;
    team.for_columns<N>(dim, [&](std::int64_t c) {
      float in[N];
      load_sum(block, at + c, in);
      for (auto const v : in) squares += v * v;
    });
    squares = team.reduce(block, squares, add_up());
    float const inverse = 1 / std::sqrt(squares / static_cast<float>(dim) + epsilon);
    auto const* const normed = add == nullptr ? x : sum;
    team.for_columns<N>(dim, [&](std::int64_t c) {
      float in[N], g[N];
      load(normed + at + c, in);
      load(gain + c, g);
      for (int i = 0; i < N; ++i) in[i] *= inverse * g[i];
      store(block, in, y + at + c);
    });
    if (inverse_rms != nullptr && team.member == 0) inverse_rms[team.row] = inverse;
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void load_sum(Block const& block, std::int64_t at, float (&in)[N]) const {
    load(x + at, in);
    if (add == nullptr) return;
    float other[N];
    load(add + at, other);
    for (int i = 0; i < N; ++i) in[i] += other[i];
    store(block, in, sum + at);
    load(sum + at, in);
  }
};

/// Backward of rms_norm, from its input: dx = residual + gradient, where `residual` is what reaches
/// x beside the norm (null: nothing). Writes the norm's output once more to y (null: not wanted),
/// which the weight's gradient needs. The gain's gradient is column_sums' with norm_gain_term.
template <number D>
struct rms_norm_backward {
  D const* dy = nullptr;               ///< [rows, dim]
  bfloat16 const* x = nullptr;         ///< [rows, dim]
  float const* inverse_rms = nullptr;  ///< [rows]
  bfloat16 const* gain = nullptr;      ///< [dim]
  bfloat16 const* residual = nullptr;  ///< [rows, dim], or null; may be dx
  bfloat16* dx = nullptr;              ///< [rows, dim]
  bfloat16* y = nullptr;               ///< [rows, dim], or null
  std::int64_t rows = 0, dim = 0;

  grid size() const { return row_team::size(rows, dim); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    in_wides(dim) ? run<wide>(block) : run<1>(block);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    row_team const team = row_team::of(block, dim);
    if (team.row >= rows) return;
    auto const at = team.row * dim;
    float dot = 0;
    team.for_columns<N>(dim, [&](std::int64_t c) {
      float d[N], in[N], g[N];
      load(dy + at + c, d);
      load(x + at + c, in);
      load(gain + c, g);
      for (int i = 0; i < N; ++i) dot += d[i] * g[i] * in[i];
    });
    dot = team.reduce(block, dot, add_up());
    float const inverse = inverse_rms[team.row];
    float const slope = dot * inverse * inverse / static_cast<float>(dim);
    team.for_columns<N>(dim, [&](std::int64_t c) { finish<N>(block, at, c, inverse, slope); });
  }

  template <int N, thread_block Block>
  STRATA_DEVICE void finish(Block const& block, std::int64_t at, std::int64_t c, float inverse,
                            float slope) const {
    float d[N], in[N], g[N], beside[N] = {};
    load(dy + at + c, d);
    load(x + at + c, in);
    load(gain + c, g);
    if (residual != nullptr) load(residual + at + c, beside);
    for (int i = 0; i < N; ++i) {
      d[i] = beside[i] + inverse * (d[i] * g[i] - in[i] * slope);
      in[i] *= inverse * g[i];
    }
    store(block, d, dx + at + c);
    if (y != nullptr) store(block, in, y + at + c);
  }
};

}  // namespace lm::cuda
