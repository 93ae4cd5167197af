// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The states that the parts of a forward call leave behind, and how they become the output. A state
// belongs to a row block: the softmax of each of its rows over some of its keys, in base 2, and the
// sum of weighted values.
#pragma once

#include <cmath>
#include <cstdint>

#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/element.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/fragment_scorer.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr float minus_infinity = strata::minus_infinity<float>;

/// 2^(from - to); 0 where nothing had been seen.
template <thread_block Block>
STRATA_DEVICE inline float decay(Block const& block, float from, float to) {
  return from == minus_infinity ? 0 : block.exp2(from - to);
}

/// What a softmax comes to: the factor of its weighted values, and the natural lse.
struct softmax_end {
  float scale = 0, lse = minus_infinity;
};

/// Joins a softmax in base 2 with the sink, or null where there is none. Nothing seen: zero, -inf.
template <thread_block Block>
STRATA_DEVICE inline softmax_end softmax_result(Block const& block, float max, float sum,
                                                float const* sink) {
  float scale = 1;
  if (sink != nullptr) {
    float const logit = *sink * log2_of_e;
    float const joint = logit > max || logit != logit ? logit : max;
    scale = decay(block, max, joint);
    sum = sum * scale + decay(block, logit, joint);
    max = joint;
  }
  if (sum == 0) return {};
  return {scale / sum, max / log2_of_e + std::log(sum)};
}

/// Where states lie.
struct state_memory {
  float* data = nullptr;  ///< [states, block_rows, v_dim + 2]: values, then maximum, then sum
  std::int32_t block_rows = 16;
  std::int32_t v_dim = 0;

  static constexpr std::int64_t bytes(std::int64_t states, std::int32_t block_rows,
                                      std::int32_t v_dim) noexcept {
    return states * block_rows * (std::int64_t{v_dim} + 2) *
           static_cast<std::int64_t>(sizeof(float));
  }
  STRATA_DEVICE float* row(std::int64_t state, std::int32_t row) const {
    return data + (state * block_rows + row) * (std::int64_t{v_dim} + 2);
  }
  STRATA_DEVICE void store_softmax(float* row, float max, float sum) const {
    row[v_dim] = max;
    row[v_dim + 1] = sum;
  }
};

/// What every part of a forward call is given.
template <class T, class View>
struct forward_args {
  query_rows<T> q;
  View view;
  call_rule rule;
  split_rule split;
  state_memory states;
};

/// Row and query head of pair i of a row block.
template <class T, class View>
STRATA_DEVICE inline std::int64_t pair_row(query_rows<T> const& q, View const& view,
                                           std::int32_t seq, std::int32_t kv_head,
                                           std::int32_t pair) {
  auto const group = q.q_heads / view.kv_heads;
  auto const row = q.row_begin(seq) + pair / group;
  return std::int64_t{row} * q.q_heads + kv_head * group + pair % group;
}

/// The greatest maximum of a pair's states, and of the sink. Lanes look at states in turn.
template <thread_block Block>
STRATA_DEVICE inline float joint_max(Block const& block, state_memory const& states,
                                     row_block const& rows, std::int32_t pair, float max) {
  for (std::int64_t i = lane_of(block); i < rows.num_states; i += warp_size)
    max = larger(max, states.row(rows.first_state + i, pair)[states.v_dim]);
  for (std::int32_t mask = 1; mask < warp_size; mask *= 2)
    max = larger(max, block.shuffle_xor(max, mask));
  return max;
}

/// States of a pair whose values a lane has on their way at the same time: one after the other, each
/// waits for the whole way to memory (the 33 states of a sequence alone: 25 us on an H100).
inline constexpr std::int32_t states_at_once = 8;
/// Columns of a lane.
inline constexpr std::int32_t merged_columns = 4;

/// Adds up to 32 states of a pair from number `base` on, of which this lane has weighed number
/// base + lane: columns first + lane, and more at distances of 32.
template <thread_block Block>
STRATA_DEVICE inline void add_states(Block const& block, state_memory const& states,
                                     row_block const& rows, std::int32_t pair, std::int64_t base,
                                     float weight, std::int32_t first,
                                     float (&value)[merged_columns]) {
  auto const lane = lane_of(block);
  auto const count =
      static_cast<std::int32_t>(smaller<std::int64_t>(rows.num_states - base, warp_size));
  for (std::int32_t k = 0; k < count; k += states_at_once) {
    float x[states_at_once][merged_columns], its[states_at_once];
    unrolled<states_at_once>([&](std::int32_t s) {
      auto const which = smaller(k + s, count - 1);  // the last once more: it then counts nothing
      auto const* const row = states.row(rows.first_state + base + which, pair);
      unrolled<merged_columns>([&](std::int32_t c) {
        auto const j = first + c * warp_size + lane;
        x[s][c] = j < states.v_dim ? row[j] : 0.f;
      });
    });
    unrolled<states_at_once>([&](std::int32_t s) {
      float const at = block.shuffle(weight, smaller(k + s, count - 1));
      its[s] = k + s < count ? at : 0.f;
    });
    unrolled<states_at_once * merged_columns>([&](std::int32_t i) {
      auto const s = i / merged_columns, c = i % merged_columns;
      value[c] += its[s] == 0 ? 0.f : its[s] * x[s][c];  // what counts nothing may hold anything
    });
  }
}

/// Merges the states of one pair, a warp for each; the sink counts here, and nowhere else. A lane
/// weighs every 32nd state, and the others ask it; each has columns of its own, 128 at a time.
template <class T, class View, thread_block Block>
STRATA_DEVICE inline void merge_pair(Block const& block, forward_args<T, View> const& args,
                                     row_block const& rows, std::int32_t pair) {
  auto const& q = args.q;
  auto const& view = args.view;
  auto const& states = args.states;
  auto const at = pair_row(q, view, rows.seq, rows.kv_head, rows.first_pair + pair);
  auto const lane = lane_of(block);
  auto const* const sink = q.sink(at % q.q_heads);
  float const own = sink == nullptr ? minus_infinity : *sink * log2_of_e;
  float const max = joint_max(block, states, rows, pair, own);
  float sum = lane == 0 ? decay(block, own, max) : 0.f;
  for (std::int32_t first = 0; first == 0 || first < view.v_dim;
       first += merged_columns * warp_size) {
    float value[merged_columns] = {};
    for (std::int64_t base = 0; base < rows.num_states; base += warp_size) {
      auto const mine = base + lane;
      auto const* const state =
          states.row(rows.first_state + (mine < rows.num_states ? mine : 0), pair);
      float const weight = mine < rows.num_states ? decay(block, state[states.v_dim], max) : 0.f;
      if (first == 0) sum += weight == 0 ? 0.f : weight * state[states.v_dim + 1];
      add_states(block, states, rows, pair, base, weight, first, value);
    }
    if (first == 0)
      for (std::int32_t mask = 1; mask < warp_size; mask *= 2) sum += block.shuffle_xor(sum, mask);
    float const scale = sum == 0 ? 0.f : 1 / sum;
    unrolled<merged_columns>([&](std::int32_t c) {
      auto const j = first + c * warp_size + lane;
      if (j < view.v_dim) q.out[at * view.v_dim + j] = strata::detail::narrow<T>(value[c] * scale);
    });
  }
  if (q.lse != nullptr && lane == 0)
    q.lse[at] = sum == 0 ? minus_infinity : max / log2_of_e + std::log(sum);
}

/// Pairs of a row block that a block of the combining launch takes: one for each of four warps. So
/// a batch of one sequence still is the work of many blocks.
inline constexpr std::int32_t combined_pairs = 4;

/// The second launch of a forward call: parts of row blocks in turn, a warp for each of their
/// pairs.
template <class T, class View, thread_block Block>
STRATA_DEVICE inline void combine_body(Block const& block, forward_args<T, View> const& args,
                                       std::int32_t threads) {
  auto const parts = ceil_divide(args.split.block_rows, combined_pairs);
  auto const first = block.index() % parts * combined_pairs;
  schedule line(block, args.q, args.view, args.split, threads, block.memory());
  block
      .wait_for_launch_before();  // all blocks do: the launch after this one waits for nothing else
  if (block.index() >= block.count() / parts * parts)
    return;  // a rest that is no whole row block's
  line.for_each_row_block(block.index() / parts, block.count() / parts, [&](row_block const& rows) {
    auto const end = smaller(rows.pairs, first + combined_pairs);
    for (auto pair = first + warp_of(block); pair < end; pair += threads / warp_size)
      merge_pair(block, args, rows, pair);
  });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
