// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// From logits to what is wanted of them: their loss and its gradient, or the likeliest token.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/block_ops.hpp"

namespace lm::cuda {
namespace detail {

inline constexpr float lowest_logit = -3.402823466e+38F;

/// Sum of exp(x - top) over what was seen; `top` is the largest.
struct exp_sum {
  float top = lowest_logit;
  float sum = 0;

  template <int N, thread_block Block>
  STRATA_DEVICE void add(Block const& block, float const (&x)[N]) {
    float most = top;
    for (auto const v : x) most = take_larger()(v, most);
    sum *= exponential(block, top - most);
    top = most;
    for (auto const v : x) sum += exponential(block, v - top);
  }
};

}  // namespace detail

/// Cross-entropy of rows of logits, in nats, and its gradient, (softmax - one hot) scale. Logits in
/// bf16 may become their gradient in place; a row is read twice.
template <number L>
struct token_losses {
  L const* logits = nullptr;              ///< [rows, vocab]
  std::int32_t const* targets = nullptr;  ///< [rows]; below 0: does not count, and is 0
  float* losses = nullptr;                ///< [rows]
  bfloat16* gradient = nullptr;           ///< [rows, vocab], or null: not wanted; may be `logits`
  float scale = 1;
  std::int64_t rows = 0, vocab = 0;

  grid size() const { return row_team::size(rows, vocab); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    in_wides(vocab) ? run<wide>(block) : run<1>(block);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    row_team const team = row_team::of(block, vocab);
    if (team.row >= rows) return;
    auto const* const row = logits + team.row * vocab;
    auto const target = targets[team.row];
    detail::exp_sum own;
    team.for_columns<N>(vocab, [&](std::int64_t c) {
      float x[N];
      load(row + c, x);
      own.add(block, x);
    });
    bool const counts = target >= 0;
    // Before it becomes its gradient.
    float const chosen = strata::detail::widen(row[counts ? target : 0]);
    float const top = team.reduce(block, own.top, take_larger());
    float const total = team.reduce(block, own.sum * exponential(block, own.top - top), add_up());
    if (team.member == 0) losses[team.row] = counts ? std::log(total) + top - chosen : 0;
    if (gradient == nullptr) return;
    float const factor = counts ? scale / total : 0;
    team.for_columns<N>(vocab, [&](std::int64_t c) {
      float x[N];
      load(row + c, x);
      for (int i = 0; i < N; ++i) {
        x[i] = exponential(block, x[i] - top) * factor;
        if (c + i == target) x[i] -= scale;
      }
      store(block, x, gradient + team.row * vocab + c);
    });
  }
};

/// sum[0] += factor times the sum of all values, in double.
struct sum_values {
  float const* values = nullptr;  ///< [count]
  double* sum = nullptr;          ///< [1]
  double factor = 1;
  std::int64_t count = 0;

  grid size() const { return {1, block_threads, reduce_bytes}; }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    double own = 0;
    for (std::int64_t i = block.thread(); i < count; i += block_threads) own += values[i];
    own = block_reduce(block, own, add_up());
    if (block.thread() == 0) *sum += factor * own;
  }
};

/// tokens[r] = the column of the largest number of row r, the lowest of equals.
template <number L>
struct likeliest_tokens {
  L const* logits = nullptr;       ///< [rows, vocab]
  std::int32_t* tokens = nullptr;  ///< [rows]
  std::int64_t rows = 0, vocab = 0;

  grid size() const { return row_team::size(rows, vocab); }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    in_wides(vocab) ? run<wide>(block) : run<1>(block);
  }

 private:
  struct place {
    float value;
    std::int32_t column;
  };
  struct better {
    STRATA_DEVICE place operator()(place a, place b) const {
      bool const second = b.value > a.value || (b.value == a.value && b.column < a.column);
      return second ? b : a;
    }
  };

  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    row_team const team = row_team::of(block, vocab);
    if (team.row >= rows) return;
    // What no logit beats, NaN included, is column 0, as on the host.
    place best{strata::detail::widen(logits[team.row * vocab]), 0};
    team.for_columns<N>(vocab, [&](std::int64_t c) {
      float x[N];
      load(logits + team.row * vocab + c, x);
      for (int i = 0; i < N; ++i) best = better()(best, {x[i], static_cast<std::int32_t>(c + i)});
    });
    best = join(block, team, best);
    if (team.member == 0) tokens[team.row] = best.column;
  }

  /// The two parts of a place travel apart: a device shuffles words.
  template <thread_block Block>
  STRATA_DEVICE static place join(Block const& block, row_team const& team, place own) {
    float const top = team.reduce(block, own.value, take_larger());
    auto const column = own.value == top ? own.column : 0x7FFFFFFF;
    auto const first = team.reduce(block, column, take_lower());
    return {top, first == 0x7FFFFFFF ? 0 : first};
  }
  struct take_lower {
    STRATA_DEVICE std::int32_t operator()(std::int32_t a, std::int32_t b) const {
      return a < b ? a : b;
    }
  };
};

}  // namespace lm::cuda
