// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Backward, first launch: what the gradients of a pair need besides its rows, once for all tiles of
// keys. With P = exp(score - lse) and D = sum(d_out * out):
//
//     dV += P d_out,   dS = P (d_out . V - D) slope,   dQ += dS K,   dK += dS Q
//
// The gradients then come from two launches, one whose blocks own queries and one whose blocks own
// keys: scores are computed twice (7 products instead of 5), and nobody adds to what somebody else
// adds to, so results have the same bits whatever the launch. Or, where bits may differ, from those
// that own keys alone, which add to sums of dQ as well (backward_sums_mma.hpp). Sinks take part
// through lse alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/fragment_softmax.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t pairs_of_tile = 32;

/// 16 bytes, which a thread moves at once. All zeros: a pair that sees nothing.
struct alignas(16) pair_facts {
  row_sight sight;
  float lse;    // in base 2
  float total;  // D
};

/// What every part of a backward call is given. Workspace: sums of dQ where there are such, facts
/// of all pairs, then bounds.
template <class T, class View>
struct backward_args {
  query_rows<T> q;
  View view;
  call_rule rule;
  T const* d_out = nullptr;
  T* d_q = nullptr;
  kv_grad<float> grad;
  pair_facts* facts = nullptr;     ///< [kv_heads, rows * group]
  sight_bounds* bounds = nullptr;  ///< [kv_heads, tiles], tiles: rows * group / 32 + num_seqs
  /// [kv_heads, tiles, 32, k_dim]: dQ / scale of a tile's 32 pairs, as `add_fragment` leaves them.
  /// Null: dQ has a launch of its own.
  float* d_q_sums = nullptr;

  /// sums: whether there are sums of dQ.
  static constexpr std::int64_t workspace_bytes(query_rows<T> const& q, View const& view,
                                                std::int64_t rows, bool sums) {
    auto const of_tile =
        static_cast<std::int64_t>(sizeof(sight_bounds)) + (sums ? sums_bytes(view) : 0);
    return rows * q.q_heads * static_cast<std::int64_t>(sizeof(pair_facts)) +
           tiles(q, view, rows) * of_tile;
  }
  /// Takes a workspace, 16-byte aligned, for `rows` query rows.
  void use(std::byte* workspace, std::int64_t rows, bool sums) {
    auto const of_sums = sums ? tiles(q, view, rows) * sums_bytes(view) : 0;
    d_q_sums = sums ? reinterpret_cast<float*>(workspace) : nullptr;
    facts = reinterpret_cast<pair_facts*>(workspace + of_sums);
    bounds = reinterpret_cast<sight_bounds*>(facts + rows * q.q_heads);
  }

  bool wants_tokens() const { return grad.dk != nullptr || grad.dv != nullptr; }

  STRATA_HOST_DEVICE std::int32_t group() const { return q.q_heads / view.kv_heads; }
  STRATA_DEVICE std::int32_t pairs(std::int32_t seq) const {
    return (q.row_end(seq) - q.row_begin(seq)) * group();
  }
  /// Those of a (sequence, KV head).
  STRATA_DEVICE pair_facts* facts_of(std::int32_t seq, std::int32_t kv_head) const {
    return facts + (std::int64_t{q.num_rows()} * kv_head + q.row_begin(seq)) * group();
  }
  STRATA_DEVICE sight_bounds* bounds_of(std::int32_t seq, std::int32_t kv_head) const {
    auto const per_head = std::int64_t{q.num_rows()} * group() / pairs_of_tile + q.num_seqs;
    return bounds + per_head * kv_head + std::int64_t{q.row_begin(seq)} * group() / pairs_of_tile +
           seq;
  }
  /// Those of 32 pairs, from pair `first` on.
  STRATA_DEVICE float* sums_of(std::int32_t seq, std::int32_t kv_head, std::int32_t first) const {
    auto const tile = bounds_of(seq, kv_head) - bounds + first / pairs_of_tile;
    return d_q_sums + tile * pairs_of_tile * view.k_dim;
  }

 private:
  /// Of 32 pairs, of all KV heads.
  static constexpr std::int64_t tiles(query_rows<T> const& q, View const& view, std::int64_t rows) {
    return view.kv_heads * (rows * (q.q_heads / view.kv_heads) / pairs_of_tile + q.num_seqs);
  }
  static constexpr std::int64_t sums_bytes(View const& view) {
    return std::int64_t{pairs_of_tile} * view.k_dim * static_cast<std::int64_t>(sizeof(float));
  }
};

/// The split of a launch that walks row blocks of so many pairs, or tokens.
STRATA_HOST_DEVICE constexpr split_rule backward_split(std::int32_t block_rows) noexcept {
  split_rule rule;
  rule.block_rows = block_rows;
  rule.unit_keys = 0;
  rule.most_pairs = most_int32;
  return rule;
}

/// D of up to 32 pairs, that of pair `lane` in each lane.
template <class T, class View, thread_block Block>
STRATA_DEVICE inline float total_of(Block const& block, backward_args<T, View> const& args,
                                    row_block const& rows) {
  auto const dim = args.view.v_dim;
  float own = 0;
  for (std::int32_t i = 0; i < rows.pairs; ++i) {
    auto const at = pair_row(args.q, args.view, rows.seq, rows.kv_head, rows.first_pair + i) * dim;
    float sum = 0;
    for (auto j = lane_of(block); j < dim; j += warp_size)
      sum += strata::detail::widen(args.d_out[at + j]) * strata::detail::widen(args.q.out[at + j]);
    for (std::int32_t mask = 1; mask < warp_size; mask *= 2) sum += block.shuffle_xor(sum, mask);
    if (i == lane_of(block)) own = sum;
  }
  return own;
}

/// Facts and bounds of up to 32 pairs, by a warp; their sums of dQ begin with zeros.
template <class T, class View, thread_block Block>
STRATA_DEVICE inline void prepare_pairs(Block const& block, backward_args<T, View> const& args,
                                        row_block const& rows) {
  auto const& q = args.q;
  float const total = total_of(block, args, rows);
  sight_bounds bounds;
  if (auto const i = rows.first_pair + lane_of(block); lane_of(block) < rows.pairs) {
    auto const at = pair_row(q, args.view, rows.seq, rows.kv_head, i);
    auto const keys = strata::detail::keys_of(q, args.view, rows.seq, rows.kv_head);
    auto const position =
        q.position(rows.seq, static_cast<std::int32_t>(at / q.q_heads), keys.end_position);
    pair_facts own{row_sight(q.rule, position), q.lse[at] * log2_of_e, total};
    if (q.lse[at] == minus_infinity) own.sight = {};  // it has seen nothing
    bounds.add(own.sight);
    args.facts_of(rows.seq, rows.kv_head)[i] = own;
  }
  bounds.join_lanes(block, 1);
  if (lane_of(block) == 0)
    args.bounds_of(rows.seq, rows.kv_head)[rows.first_pair / pairs_of_tile] = bounds;
  if (args.d_q_sums == nullptr) return;
  auto* const sums = args.sums_of(rows.seq, rows.kv_head, rows.first_pair);
  constexpr std::int32_t together = sizeof(chunk) / sizeof(float);
  for (auto i = lane_of(block); i < pairs_of_tile * args.view.k_dim / together; i += warp_size)
    reinterpret_cast<chunk*>(sums)[i] = {};
}

inline constexpr std::int32_t prepare_threads = 128;

/// The first launch of a backward call. Any T, any codec and head.
template <class T, class View, thread_block Block>
STRATA_DEVICE inline void backward_prepare_body(Block const& block,
                                                backward_args<T, View> const& args) {
  auto const split = backward_split(prepare_threads);
  schedule<Block, T, View>(block, args.q, args.view, split, prepare_threads, block.memory())
      .for_each_row_block([&](row_block rows) {
        auto const first = warp_of(block) * pairs_of_tile;
        rows.first_pair += first;
        rows.pairs = smaller(rows.pairs - first, pairs_of_tile);
        if (rows.pairs > 0) prepare_pairs(block, args, rows);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
