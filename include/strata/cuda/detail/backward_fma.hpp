// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Gradients by plain multiply-adds, a warp for each pair's dQ and for each token's dK and dV: from
// any codec, for any T and any head up to 1024. For shapes that have no matrix kernel, and for rows
// whose values hold what is not finite: a key whose weight is 0 counts nothing here, not even where
// K or V are infinite.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/backward_pairs.hpp>
#include <strata/cuda/detail/chunk_reader.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t backward_fma_threads = 128;

/// Columns of a row, 8 in every 256 to a lane.
template <std::int32_t Chunks>
struct lane_columns {
  float x[Chunks][chunk_elements] = {};

  STRATA_DEVICE static std::int32_t column(std::int32_t lane, std::int32_t c) {
    return (c * warp_size + lane) * chunk_elements;
  }
  template <class T>
  STRATA_DEVICE void load_row(std::int32_t lane, T const* row, std::int32_t dim) {
    for (std::int32_t c = 0; c < Chunks; ++c)
      for (std::int32_t i = 0; i < chunk_elements; ++i) {
        auto const j = column(lane, c) + i;
        x[c][i] = j < dim ? strata::detail::widen(row[j]) : 0.f;
      }
  }
  template <class Codec, thread_block Block, class Blocks>
  STRATA_DEVICE void load_token(Block const& block, Blocks const& blocks, std::int64_t row,
                                std::int32_t head, std::int32_t token, std::int32_t dim) {
    unrolled<Chunks>([&](std::int32_t c) {
      chunk_reader<Codec>::load(block, blocks.at(row, head, token),
                                blocks.scales_at(row, head, token), column(lane_of(block), c), dim,
                                rows_aligned(blocks), x[c]);
    });
  }
  /// The dot product of two rows, in every lane.
  template <thread_block Block>
  STRATA_DEVICE float dot(Block const& block, lane_columns const& other) const {
    float sum = 0;
    for (std::int32_t c = 0; c < Chunks; ++c)
      for (std::int32_t i = 0; i < chunk_elements; ++i) sum += x[c][i] * other.x[c][i];
    for (std::int32_t mask = 1; mask < warp_size; mask *= 2) sum += block.shuffle_xor(sum, mask);
    return sum;
  }
  STRATA_DEVICE void add(float factor, lane_columns const& other) {
    for (std::int32_t c = 0; c < Chunks; ++c)
      for (std::int32_t i = 0; i < chunk_elements; ++i) x[c][i] += factor * other.x[c][i];
  }
  /// Calls body(column, value) for the columns of a row.
  template <class Body>
  STRATA_DEVICE void for_each(std::int32_t lane, std::int32_t dim, Body&& body) const {
    for (std::int32_t c = 0; c < Chunks; ++c)
      for (std::int32_t i = 0; i < chunk_elements; ++i)
        if (dim > column(lane, c) + i) body(column(lane, c) + i, x[c][i]);
  }
};

/// P of a pair and a key, and dS over scale.
struct pair_gradient {
  float weight = 0, d_score = 0;

  template <thread_block Block>
  STRATA_DEVICE pair_gradient(Block const& block, fragment_scorer const& rule,
                              pair_facts const& facts, float dot, float d_weight) {
    float slope;
    weight = block.exp2(rule.score(block, dot, slope) - facts.lse);
    d_score = weight * (d_weight - facts.total) * slope;
  }
};

/// Where the gradient of a token's K or V lies.
template <class Strides>
STRATA_DEVICE inline float* gradient_row(float* data, Strides const& stride, std::int32_t seq,
                                         std::int32_t kv_head, std::int32_t token) {
  return data + seq * stride.seq + token * stride.token + kv_head * stride.head;
}

template <std::int32_t Chunks>
STRATA_DEVICE inline void store_gradient(std::int32_t lane, lane_columns<Chunks> const& sums,
                                         std::int32_t dim, float scale, bool add, float* to) {
  sums.for_each(lane, dim,
                [&](std::int32_t j, float x) { to[j] = (add ? to[j] : 0.f) + x * scale; });
}

/// dK and dV of a token, by a warp.
template <std::int32_t Chunks, class T, class View, thread_block Block>
STRATA_DEVICE inline void token_gradient(Block const& block, backward_args<T, View> const& args,
                                         std::int32_t seq, std::int32_t kv_head,
                                         std::int32_t token) {
  auto const& [q, view, rule, d_out, d_q, grad, facts, bounds, sums] = args;
  auto const keys = strata::detail::keys_of(q, view, seq, kv_head);
  auto const lane = lane_of(block);
  lane_columns<Chunks> key, value, query, d_row, dk, dv;
  key.template load_token<typename View::k_codec>(
      block, view.k, view.k.row(seq, kv_head, view.kv_heads), kv_head, token, view.k_dim);
  value.template load_token<typename View::v_codec>(
      block, view.v, view.v.row(seq, kv_head, view.kv_heads), kv_head, token, view.v_dim);
  bool const read = token >= keys.begin && token < keys.end;
  for (std::int32_t pair = 0; read && pair < args.pairs(seq); ++pair) {
    auto const of_pair = args.facts_of(seq, kv_head)[pair];
    if (!of_pair.sight.sees(keys.position(token))) continue;
    auto const at = pair_row(q, view, seq, kv_head, pair);
    query.load_row(lane, q.q + at * view.k_dim, view.k_dim);
    d_row.load_row(lane, d_out + at * view.v_dim, view.v_dim);
    pair_gradient const g(block, rule.fragments, of_pair, query.dot(block, key),
                          d_row.dot(block, value));
    if (g.weight == 0) continue;
    dk.add(g.d_score, query);
    dv.add(g.weight, d_row);
  }
  if (grad.dk != nullptr)
    store_gradient(lane, dk, view.k_dim, rule.scale, grad.add_k,
                   gradient_row(grad.dk, grad.dk_stride, seq, kv_head, token));
  if (grad.dv != nullptr)
    store_gradient(lane, dv, view.v_dim, 1, grad.add_v,
                   gradient_row(grad.dv, grad.dv_stride, seq, kv_head, token));
}

/// dQ of a pair, by a warp.
template <std::int32_t Chunks, class T, class View, thread_block Block>
STRATA_DEVICE inline void query_gradient(Block const& block, backward_args<T, View> const& args,
                                         std::int32_t seq, std::int32_t kv_head,
                                         std::int32_t pair) {
  auto const& [q, view, rule, d_out, d_q, grad, facts, bounds, sums] = args;
  auto const keys = strata::detail::keys_of(q, view, seq, kv_head);
  auto const k_row = view.k.row(seq, kv_head, view.kv_heads);
  auto const v_row = view.v.row(seq, kv_head, view.kv_heads);
  auto const lane = lane_of(block);
  auto const at = pair_row(q, view, seq, kv_head, pair);
  auto const of_pair = args.facts_of(seq, kv_head)[pair];
  lane_columns<Chunks> key, value, query, d_row, sum;
  query.load_row(lane, q.q + at * view.k_dim, view.k_dim);
  d_row.load_row(lane, d_out + at * view.v_dim, view.v_dim);
  for (auto token = keys.begin; token < keys.end; ++token) {
    if (!of_pair.sight.sees(keys.position(token))) continue;
    key.template load_token<typename View::k_codec>(block, view.k, k_row, kv_head, token,
                                                    view.k_dim);
    value.template load_token<typename View::v_codec>(block, view.v, v_row, kv_head, token,
                                                      view.v_dim);
    pair_gradient const g(block, rule.fragments, of_pair, query.dot(block, key),
                          d_row.dot(block, value));
    if (g.weight != 0) sum.add(g.d_score, key);
  }
  T* const to = d_q + at * view.k_dim;
  float const scale = rule.scale;
  sum.for_each(lane, view.k_dim,
               [&](std::int32_t j, float x) { to[j] = strata::detail::narrow<T>(x * scale); });
}

/// dK and dV of every token, where there is no matrix kernel.
template <std::int32_t Chunks, class T, class View, thread_block Block>
STRATA_DEVICE inline void backward_tokens_fma_body(Block const& block,
                                                   backward_args<T, View> const& args) {
  auto const split = backward_split(backward_fma_threads / warp_size);
  schedule<Block, T, View, token_line>(block, args.q, args.view, split, backward_fma_threads,
                                       block.memory())
      .for_each_row_block([&](row_block const& tokens) {
        if (auto const i = warp_of(block); i < tokens.pairs)
          token_gradient<Chunks>(block, args, tokens.seq, tokens.kv_head, tokens.first_pair + i);
      });
}

/// dQ of every pair, where there is no matrix kernel.
template <std::int32_t Chunks, class T, class View, thread_block Block>
STRATA_DEVICE inline void backward_queries_fma_body(Block const& block,
                                                    backward_args<T, View> const& args) {
  auto const split = backward_split(backward_fma_threads / warp_size);
  schedule<Block, T, View>(block, args.q, args.view, split, backward_fma_threads, block.memory())
      .for_each_row_block([&](row_block const& rows) {
        if (auto const i = warp_of(block); i < rows.pairs)
          query_gradient<Chunks>(block, args, rows.seq, rows.kv_head, rows.first_pair + i);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
