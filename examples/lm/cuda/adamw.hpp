// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// AdamW on a device: the formulas of optimizer.hpp, on float masters; the bf16 copies that the
// products read follow in the same pass. The norm of the gradient stays on the device: nothing
// waits for it, and where it is not finite the weights stay as they are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/block_ops.hpp"
#include "parameters.hpp"

namespace lm::cuda {

/// A run of elements of one tensor: a block's work, and a part of the norm.
struct update_run {
  std::int64_t begin = 0;
  std::int32_t count = 0;
  std::int32_t decays = 0;
};

inline std::vector<update_run> make_update_runs(tensor_table const& table) {
  constexpr std::int64_t run_size = 16384;
  std::vector<update_run> runs;
  for (auto const& e : table.entries)
    for (std::int64_t at = 0; at < e.size(); at += run_size)
      runs.push_back({e.offset + at, static_cast<std::int32_t>(std::min(run_size, e.size() - at)),
                      e.role != tensor_role::norm});
  return runs;
}

/// squares[r] = the sum of squares of run r.
struct sum_squares {
  float const* values = nullptr;     ///< all tensors
  update_run const* runs = nullptr;  ///< [num_runs]
  double* squares = nullptr;         ///< [num_runs]
  std::int64_t num_runs = 0;

  grid size() const { return {num_runs, block_threads, reduce_bytes}; }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    auto const run = runs[block.index()];
    float own = 0;
    auto const* const from = values + run.begin;
    auto const whole = run.count / wide * wide;
    for (auto i = block.thread() * wide; i < whole; i += block_threads * wide) {
      float x[wide];
      load(from + i, x);
      for (auto const v : x) own += v * v;
    }
    if (auto const i = whole + block.thread(); i < run.count) own += from[i] * from[i];
    auto const sum = block_reduce(block, static_cast<double>(own), add_up());
    if (block.thread() == 0) squares[block.index()] = sum;
  }
};

/// norm[0] = the root of the sum of all squares.
struct finish_norm {
  double const* squares = nullptr;  ///< [count]
  double* norm = nullptr;           ///< [1]
  std::int64_t count = 0;

  grid size() const { return {1, block_threads, reduce_bytes}; }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    double own = 0;
    for (std::int64_t i = block.thread(); i < count; i += block_threads) own += squares[i];
    own = block_reduce(block, own, add_up());
    if (block.thread() == 0) *norm = std::sqrt(own);
  }
};

/// What a step of AdamW is told; make_factors of optimizer.hpp's adamw has the formulas.
struct update_factors {
  float clip = 0;  ///< largest norm; 0: none
  float beta1 = 0, beta2 = 0;
  float lr = 0;
  float unbias1 = 1, unbias2 = 1;
  float epsilon = 0;
  float shrink = 1;  ///< of weights that decay
};

struct update_weights {
  float* masters = nullptr;     ///< all tensors, as those below
  bfloat16* weights = nullptr;  ///< the masters, rounded
  float* first_moment = nullptr;
  float* second_moment = nullptr;
  float const* gradient = nullptr;
  double const* norm = nullptr;      ///< [1], of the gradient
  update_run const* runs = nullptr;  ///< [num_runs]
  std::int64_t num_runs = 0;
  update_factors f;

  grid size() const { return {num_runs, block_threads, 0}; }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    auto const run = runs[block.index()];
    auto const length = static_cast<float>(*norm);
    if (!(length - length == 0)) return;  // not finite
    float const scale = f.clip > 0 && length > f.clip ? f.clip / length : 1.F;
    float const shrink = run.decays != 0 ? f.shrink : 1.F;
    auto const whole = run.count / wide * wide;
    for (auto i = block.thread() * wide; i < whole; i += block_threads * wide)
      update<wide>(block, run.begin + i, scale, shrink);
    if (auto const i = whole + block.thread(); i < run.count)
      update<1>(block, run.begin + i, scale, shrink);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void update(Block const& block, std::int64_t at, float scale, float shrink) const {
    float w[N], m[N], v[N], g[N];
    load(masters + at, w);
    load(first_moment + at, m);
    load(second_moment + at, v);
    load(gradient + at, g);
    for (int i = 0; i < N; ++i) {
      float const d = g[i] * scale;
      m[i] = f.beta1 * m[i] + (1 - f.beta1) * d;
      v[i] = f.beta2 * v[i] + (1 - f.beta2) * d * d;
      w[i] = shrink * w[i] - f.lr * (m[i] * f.unbias1) / (std::sqrt(v[i] * f.unbias2) + f.epsilon);
    }
    store(block, w, masters + at);
    store(block, m, first_moment + at);
    store(block, v, second_moment + at);
    store(block, w, weights + at);
  }
};

}  // namespace lm::cuda
