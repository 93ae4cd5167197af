// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Backward, the launch whose blocks own queries: dQ of 128 pairs of a query row and a query head of
// one KV head, 16 to a warp, from all keys that one of them sees, 32 at a time in ascending order.
// 212 registers, no spills, and 178 at head_dim 64 (nvcc 13.0); 106 KB of shared memory.
//
// dS / scale is rounded to T before it meets K. A pair whose sum is not finite is computed again by
// plain multiply-adds, as tokens are (backward_tokens_mma.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/backward_tiles.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

template <class T, class View, std::int32_t Dim>
struct backward_queries_memory {
  using owned = pair_tiles<Dim, backward_rows>;
  using stage = kv_tiles<T, View, Dim, backward_stage_rows>;
  static constexpr std::int32_t bytes() { return owned::bytes + backward_stages * stage::bytes; }
};

/// 16 pairs in one warp.
template <class T, class View, std::int32_t Dim>
class backward_queries_warp {
 public:
  using memory = backward_queries_memory<T, View, Dim>;
  using owned = typename memory::owned;

  STRATA_DEVICE backward_queries_warp(backward_args<T, View> const& args, row_block const& rows,
                                      key_range const& keys, std::byte* tile)
      : args_(args), rows_(rows), keys_(keys), scorer_(args.rule.fragments), tile_(tile) {}

  /// Takes 32 keys from `first` on, which lie in `stage`.
  template <thread_block Block>
  STRATA_DEVICE void take(Block const& block, std::byte const* stage, std::int32_t first,
                          sight_bounds const& bounds) {
    auto const last = smaller(first + backward_stage_rows, keys_.end) - 1;
    auto const from = keys_.position(first), to = keys_.position(last);
    if (!bounds.any_sees(from, to)) return;
    auto const* const own = tile_ + warp_of(block) * fragment_rows * row_tile_pitch<Dim>;
    float weights[backward_fragments][4], d_scores[backward_fragments][4];
    multiply_rows<Dim, T>(block, own, stage, weights);
    multiply_rows<Dim, T>(block, own + owned::d_out_offset, stage + memory::stage::v_offset,
                          d_scores);
    bool const all = last - first == backward_stage_rows - 1 && bounds.all_see(from, to);
    differentiate(block, first, all, weights, d_scores);
    add_rows<Dim, T>(block, d_scores, stage, sum_);
  }

  /// dQ goes out by way of the warp's own queries.
  template <thread_block Block>
  STRATA_DEVICE void finish(Block const& block) {
    auto const first = warp_of(block) * fragment_rows;
    block.sync_warp();  // the queries have been read
    store_queries<Dim>(block, args_, rows_, first, sum_, tile_ + first * row_tile_pitch<Dim>);
  }

 private:
  /// d_out . V becomes dS / scale.
  template <thread_block Block>
  STRATA_DEVICE void differentiate(Block const& block, std::int32_t first, bool all,
                                   float const (&dots)[backward_fragments][4],
                                   float (&d_scores)[backward_fragments][4]) const {
    auto const* const facts = reinterpret_cast<pair_facts const*>(tile_ + owned::facts_offset) +
                              warp_of(block) * fragment_rows;
    unrolled<2>([&](std::int32_t i) {
      auto const of_pair = facts[fragment_row(lane_of(block), 2 * i)];
      unrolled<2 * backward_fragments>([&](std::int32_t j) {
        auto const n = j / 2, c = j % 2;
        auto const key = first + n * fragment_columns + fragment_column(lane_of(block), c);
        auto& d_score = d_scores[n][2 * i + c];
        pair_gradient const g(block, scorer_, of_pair, dots[n][2 * i + c], d_score);
        bool const seen = all || (key < keys_.end && of_pair.sight.sees(keys_.position(key)));
        d_score = seen ? g.d_score : 0.f;
      });
    });
  }

  backward_args<T, View> const& args_;
  row_block const& rows_;
  key_range const& keys_;
  fragment_scorer scorer_;
  std::byte* tile_;  // Q, d_out and facts of the block
  float sum_[Dim / fragment_columns][4] = {};
};

/// All keys that one of the block's pairs sees, past its warps.
template <class T, class View, std::int32_t Dim, thread_block Block>
STRATA_DEVICE inline void walk_keys(Block const& block, View const& view, row_block const& rows,
                                    key_range const& keys, sight_bounds const& bounds,
                                    std::byte* stages, backward_queries_warp<T, View, Dim>& warp) {
  using layout = typename backward_queries_memory<T, View, Dim>::stage;
  constexpr std::int32_t rows_of_warp = backward_stage_rows / backward_warps;
  tile_copier<layout, View, rows_of_warp> copier(block, view, keys, rows.seq, rows.kv_head,
                                                 warp_of(block) * rows_of_warp);
  auto const stage = [&](std::int32_t i) { return stages + i % backward_stages * layout::bytes; };
  auto const count = ceil_divide(larger(keys.end - keys.begin, 0), backward_stage_rows);
  auto const send = [&](std::int32_t i) {
    if (i < count) copier.copy(block, stage(i));
    if (i + 1 < count) copier.find(keys.begin + (i + 1) * backward_stage_rows);
    block.commit_copies();
  };
  if (count > 0) copier.find(keys.begin);
  send(0);
  for (std::int32_t i = 0; i < count; ++i) {
    block.template wait_copies<0>();
    block.sync();  // all copies are seen, and the stage before is no longer read
    send(i + 1);
    warp.take(block, stage(i), keys.begin + i * backward_stage_rows, bounds);
  }
  block.template wait_copies<0>();
  block.sync();
}

/// The launch that computes dQ by matrix products, after backward_prepare_body. 256 threads. A KV
/// head's last rows, which see the most keys, come first.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void backward_queries_mma_body(Block const& block,
                                                    backward_args<T, View> const& args) {
  using line = schedule<Block, T, View>;
  using memory = backward_queries_memory<T, View, Dim>;
  auto* const shared = block.memory() + schedule_bytes(backward_threads);
  auto const split = backward_split(backward_rows);
  line(block, args.q, args.view, split, backward_threads, block.memory())
      .for_each_row_block([&](row_block const& forward) {
        auto const rows = mirrored(args.q, args.view, forward, backward_rows);
        auto keys = strata::detail::keys_of(args.q, args.view, rows.seq, rows.kv_head);
        auto const* const tiles =
            args.bounds_of(rows.seq, rows.kv_head) + rows.first_pair / pairs_of_tile;
        sight_bounds all;
        for (std::int32_t i = 0; i < ceil_divide(rows.pairs, pairs_of_tile); ++i)
          all.join(tiles[i]);
        keys.begin = strata::detail::first_after(keys, all.lowest);
        keys.end = strata::detail::first_after(keys, all.highest);
        copy_pairs<Dim, typename memory::owned, fragment_rows>(
            block, args, rows.seq, rows.kv_head, rows.first_pair, args.pairs(rows.seq),
            warp_of(block) * fragment_rows, shared);  // arrives with the first stage
        backward_queries_warp<T, View, Dim> warp(args, rows, keys, shared);
        auto const own = warp_of(block) * fragment_rows;
        walk_keys(block, args.view, rows, keys,
                  own < rows.pairs ? tiles[own / pairs_of_tile] : sight_bounds{},
                  shared + memory::owned::bytes, warp);
        warp.finish(block);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
