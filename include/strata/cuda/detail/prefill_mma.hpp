// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Prefill by matrix products: a block of four warps computes 128 pairs of a query row and a query
// head of one KV head, 32 pairs to a warp, over keys in tiles of 64; the tile after that is on its
// way meanwhile. Every operand of K and V that a warp reads from shared memory meets two fragments
// of rows: with one, reading would take longer than multiplying (4 cycles for the 512 bytes that
// two products need, of 4096 multiply-adds together, which are 3.2 cycles at some 1270 a cycle).
//
// Queries lie in shared memory as well: at head_dim 128 output and scores are 128 + 32 registers of
// a lane. 252 registers, no spills; 227 and more at head_dim 64, 255 for int8 (nvcc 13.0). 106 KB
// of shared memory at head_dim 128 and 16 bits, so two blocks fit into a multiprocessor of sm_90.
//
// Tiles of keys that none of the pairs sees are skipped, those that all of a warp's see are not
// masked. Outputs leave by way of the queries' memory, in rows. Pairs whose output is not finite
// are computed again by plain multiply-adds, as in decode, once the block is through with its
// products.
//
// Queries and outputs, as K and V, begin on 16-byte boundaries.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/decode_fma.hpp>
#include <strata/cuda/detail/fragment_softmax.hpp>
#include <strata/cuda/detail/fragments.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/row_tiles.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/cuda/detail/tile_copy.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t prefill_threads = 128;
inline constexpr std::int32_t prefill_warps = prefill_threads / warp_size;
inline constexpr std::int32_t prefill_fragments = 2;  // of 16 rows, of a warp
inline constexpr std::int32_t prefill_warp_rows = prefill_fragments * fragment_rows;
inline constexpr std::int32_t prefill_rows = prefill_warps * prefill_warp_rows;
inline constexpr std::int32_t prefill_tile_keys = 64;
inline constexpr std::int32_t prefill_stages = 2;

/// The pairs of a launch that computes prefill.
constexpr split_rule prefill_split(std::int32_t least_pairs, std::int32_t most_pairs) noexcept {
  split_rule rule;
  rule.block_rows = prefill_rows;
  rule.unit_keys = 0;
  rule.least_pairs = least_pairs;
  rule.most_pairs = most_pairs;
  return rule;
}

/// What the threads of a block know of its rows. It lies in shared memory: registers are for sums.
struct prefill_notes {
  piece what;  // with the keys that one of the pairs sees, as far as bounds tell
  sight_bounds of_warps[prefill_warps];
  row_sight sights[prefill_rows];  // a pair that does not exist sees nothing
  std::int32_t odd[prefill_rows];  // whether a pair's result is not finite
};

/// Shared memory of a block, behind the schedule's: queries, tiles, notes.
template <class T, class View, std::int32_t Dim>
struct prefill_memory {
  using tiles = kv_tiles<T, View, Dim, prefill_tile_keys>;
  static constexpr std::int32_t tiles_offset = prefill_rows * row_tile_pitch<Dim>;
  static constexpr std::int32_t notes_offset = tiles_offset + prefill_stages * tiles::bytes;

  static constexpr std::int32_t bytes() {
    return notes_offset + static_cast<std::int32_t>(sizeof(prefill_notes));
  }
};

/// 32 pairs in one warp.
template <class T, class View, std::int32_t Dim>
class prefill_warp {
 public:
  using tiles = typename prefill_memory<T, View, Dim>::tiles;
  using k_reader = typename tiles::k_reader;
  using v_reader = typename tiles::v_reader;
  /// That are in registers as scores at a time; scales need some as well.
  static constexpr std::int32_t keys_at_once =
      (Dim > 64 ? 32 : 64) / (k_reader::span > 0 || v_reader::span > 0 ? 2 : 1);

  /// queries: [32, Dim] in shared memory, this warp's.
  template <thread_block Block>
  STRATA_DEVICE prefill_warp(Block const& block, forward_args<T, View> const& args,
                             prefill_notes const& notes, std::byte* queries)
      : args_(args), notes_(notes), queries_(queries) {
    scorer_ = args.rule.fragments.times(scale_of<typename View::k_codec>(args.view.k));
    send_rows<k_reader, Dim>(block, args.q.q, queries,  // arrive with the first tile
                             [&](std::int32_t i) { return place(block, i); });
  }

  /// Whether a pair sees one of the keys of a tile.
  template <thread_block Block>
  STRATA_DEVICE bool sees(Block const& block, std::int32_t first) const {
    auto const& keys = notes_.what.keys;
    auto const last = smaller(first + prefill_tile_keys, keys.end) - 1;
    return notes_.of_warps[warp_of(block)].any_sees(keys.position(first), keys.position(last));
  }

  /// Takes 64 keys from `first` on, which lie in `stage`.
  template <thread_block Block>
  STRATA_DEVICE void take(Block const& block, std::byte const* stage, std::int32_t first) {
    auto const query = [&](std::int32_t step, std::int32_t m, std::uint32_t(&a)[4]) {
      load_row_operand<Dim>(block, queries_ + m * fragment_rows * row_tile_pitch<Dim>, step, a);
    };
    auto const& keys = notes_.what.keys;
    bool const all = all_seen(keys, notes_.of_warps[warp_of(block)], first, prefill_tile_keys);
    for (std::int32_t row = 0; row < prefill_tile_keys; row += keys_at_once) {
      float scores[prefill_fragments][keys_at_once / fragment_columns][4];
      multiply_keys<tiles, T, Dim>(block, stage, row, query, scores);
      unrolled<prefill_fragments>([&](std::int32_t m) {
        score_fragments(block, scorer_, scores[m]);
        if (!all) {
          row_sight const* const own = notes_.sights + warp_of(block) * prefill_warp_rows;
          row_sight const rows[2] = {own[pair_of(block, m, 0)], own[pair_of(block, m, 1)]};
          mask_fragments(block, keys, rows, first + row, scores[m]);
        }
        state_[m].weigh(block, scorer_, scores[m]);
      });
      add_values<tiles>(block, stage, row, scores, state_);
    }
  }

  /// Writes outputs and lse. Whether all that the lane has of them is finite.
  template <thread_block Block>
  STRATA_DEVICE bool finish(Block const& block) {
    bool finite = true;
    block.sync_warp();  // the queries have been read
    unrolled<prefill_fragments>([&](std::int32_t m) {
      state_[m].collect(block);
      unrolled<2>([&](std::int32_t i) { finite = finish_row(block, m, i) && finite; });
    });
    block.sync_warp();
    store_rows<Dim>(block, queries_, notes_.what.pairs - warp_of(block) * prefill_warp_rows,
                    prefill_warp_rows, args_.q.out,
                    [&](std::int32_t i) { return place(block, i); });
    return finite;
  }

 private:
  /// The output row of pair `i` of the warp. Pairs that are none repeat the last one.
  template <thread_block Block>
  STRATA_DEVICE std::int64_t place(Block const& block, std::int32_t i) const {
    auto const pair = smaller(warp_of(block) * prefill_warp_rows + i, notes_.what.pairs - 1);
    return pair_row(args_.q, args_.view, notes_.what.seq, notes_.what.kv_head,
                    notes_.what.first_pair + pair);
  }
  /// The pair of the warp whose row g + 8 i of fragment m this lane has.
  template <thread_block Block>
  STRATA_DEVICE static std::int32_t pair_of(Block const& block, std::int32_t m, std::int32_t i) {
    return m * fragment_rows + fragment_row(lane_of(block), 2 * i);
  }

  template <thread_block Block>
  STRATA_DEVICE bool finish_row(Block const& block, std::int32_t m, std::int32_t i) const {
    auto const lane = lane_of(block), pair = pair_of(block, m, i);
    auto const at = place(block, pair);
    auto const* const sink = args_.q.sink(at % args_.q.q_heads);
    auto result = softmax_result(block, state_[m].max[i], state_[m].sum[i], sink);
    result.scale *= scale_of<typename View::v_codec>(args_.view.v);
    auto* const row = reinterpret_cast<T*>(queries_ + pair * row_tile_pitch<Dim>);
    float spread = 0;  // stays 0, or becomes NaN
    state_[m].template for_each_column<v_reader>(lane, i, [&](std::int32_t column, float x) {
      x *= result.scale;
      spread += x - x;
      row[column] = strata::detail::narrow<T>(x);
    });
    bool const exists = warp_of(block) * prefill_warp_rows + pair < notes_.what.pairs;
    if (lane % 4 == 0 && exists && args_.q.lse != nullptr) args_.q.lse[at] = result.lse;
    return !exists || spread == 0;
  }

  /// The scale of the KV head; that of a head without keys does not matter.
  template <class Codec, class Blocks>
  STRATA_DEVICE float scale_of(Blocks const& blocks) const {
    auto const& p = notes_.what;
    if (p.keys.end <= p.keys.begin) return 1;
    return head_scale<Codec>(blocks, p.seq, p.kv_head, args_.view.kv_heads, p.keys.begin);
  }

  forward_args<T, View> const& args_;
  prefill_notes const& notes_;
  std::byte* queries_;
  fragment_scorer scorer_;
  fragment_state<Dim> state_[prefill_fragments];
};

/// Notes down what there is to do for a row block.
template <class T, class View, thread_block Block>
STRATA_DEVICE inline void note_piece(Block const& block, forward_args<T, View> const& args,
                                     row_block const& rows, prefill_notes& notes) {
  auto const& q = args.q;
  piece p{rows.seq,
          rows.kv_head,
          rows.first_pair,
          rows.pairs,
          strata::detail::keys_of(q, args.view, rows.seq, rows.kv_head),
          0};
  static_assert(prefill_rows == prefill_threads && prefill_warp_rows == warp_size);
  sight_bounds bounds;
  row_sight sight;
  if (block.thread() < p.pairs) {
    auto const at = pair_row(q, args.view, p.seq, p.kv_head, p.first_pair + block.thread());
    auto const row = static_cast<std::int32_t>(at / q.q_heads);
    sight = row_sight(q.rule, q.position(p.seq, row, p.keys.end_position));
    bounds.add(sight);
  }
  bounds.join_lanes(block, 1);
  block.sync();  // the notes of the row block before have been read
  notes.sights[block.thread()] = sight;
  if (lane_of(block) == 0) notes.of_warps[warp_of(block)] = bounds;
  block.sync();
  if (block.thread() == 0) {
    for (auto const& other : notes.of_warps) bounds.join(other);
    p.keys.begin = strata::detail::first_after(p.keys, bounds.lowest);
    p.keys.end = strata::detail::first_after(p.keys, bounds.highest);
    notes.what = p;
  }
  block.sync();
}

/// The tiles of a row block, those of 64 keys from the first on that a pair sees.
template <class T, class View, std::int32_t Dim, thread_block Block>
STRATA_DEVICE inline void walk_prefill_tiles(Block const& block, View const& view, piece const& p,
                                             std::byte* stages, prefill_warp<T, View, Dim>& rows) {
  using tiles = typename prefill_memory<T, View, Dim>::tiles;
  constexpr std::int32_t rows_of_warp = prefill_tile_keys / prefill_warps;
  tile_copier<tiles, View, rows_of_warp> copier(block, view, p.keys, p.seq, p.kv_head,
                                                warp_of(block) * rows_of_warp);
  auto const stage = [&](std::int32_t i) { return stages + i % prefill_stages * tiles::bytes; };
  auto const count = ceil_divide(larger(p.keys.end - p.keys.begin, 0), prefill_tile_keys);
  auto const send = [&](std::int32_t i) {
    if (i < count) copier.copy(block, stage(i));
    if (i + 1 < count) copier.find(p.keys.begin + (i + 1) * prefill_tile_keys);
    block.commit_copies();
  };
  if (count > 0) copier.find(p.keys.begin);
  send(0);
  for (std::int32_t i = 0; i < count; ++i) {
    block.template wait_copies<0>();
    block.sync();  // all copies are seen, and the tile before is no longer read
    send(i + 1);
    auto const first = p.keys.begin + i * prefill_tile_keys;
    if (rows.sees(block, first)) rows.take(block, stage(i), first);
  }
  block.template wait_copies<0>();
}

/// Notes down the pairs whose output is not finite, a warp looking at one at a time.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void note_odd_pairs(Block const& block, forward_args<T, View> const& args,
                                         prefill_notes& notes) {
  auto const& p = notes.what;
  for (auto pair = warp_of(block); pair < p.pairs; pair += prefill_warps) {
    auto const at = pair_row(args.q, args.view, p.seq, p.kv_head, p.first_pair + pair);
    float spread = 0;
    for (auto j = lane_of(block); j < Dim; j += warp_size) {
      float const x = strata::detail::widen(args.q.out[at * Dim + j]);
      spread += x - x;
    }
    bool const odd = block.any(spread != 0);
    if (lane_of(block) == 0) notes.odd[pair] = odd;
  }
  block.sync();
}

/// The pairs whose output is not finite, again, by plain multiply-adds.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void repeat_odd_pairs(Block const& block, forward_args<T, View> const& args,
                                           prefill_notes& notes, float* shared) {
  static_assert(prefill_threads == decode_threads);
  using fma = fma_pair<ceil_divide(Dim, chunk_elements * warp_size), T, View>;
  note_odd_pairs<Dim>(block, args, notes);
  auto own = args;  // one state, which lies in shared memory
  own.states = {shared, 1, Dim};
  for (std::int32_t pair = 0; pair < notes.what.pairs; ++pair) {
    if (notes.odd[pair] == 0) continue;
    auto one = notes.what;
    one.first_pair += pair, one.pairs = 1;
    fma::run(block, own, one, 0, shared + Dim + 2);
    if (warp_of(block) == 0)
      merge_pair(block, own, {one.seq, one.kv_head, one.first_pair, 1, 0, 1}, 0);
    block.sync();
  }
}

/// A whole forward call by matrix products, of the sequences that `split` names (prefill_split).
/// 128 threads. The blocks of the launch take row blocks in turn, those of a KV head's last rows,
/// which see the most keys, first.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void prefill_mma_body(Block const& block, forward_args<T, View> const& args) {
  using line = schedule<Block, T, View>;
  using memory = prefill_memory<T, View, Dim>;
  auto* const shared = block.memory() + schedule_bytes(prefill_threads);
  auto& notes = *reinterpret_cast<prefill_notes*>(shared + memory::notes_offset);
  line blocks(block, args.q, args.view, args.split, prefill_threads, block.memory());
  bool finite = true;
  blocks.for_each_row_block([&](row_block const& rows) {
    note_piece(block, args, mirrored(args.q, args.view, rows, prefill_rows), notes);
    prefill_warp<T, View, Dim> warp(
        block, args, notes, shared + warp_of(block) * prefill_warp_rows * row_tile_pitch<Dim>);
    walk_prefill_tiles(block, args.view, notes.what, shared + memory::tiles_offset, warp);
    finite = warp.finish(block) && finite;
  });
  if (!any_warp(block, shared, prefill_warps, block.any(!finite))) return;
  // Apart from the products, which need all registers.
  blocks.for_each_row_block([&](row_block const& rows) {
    note_piece(block, args, mirrored(args.q, args.view, rows, prefill_rows), notes);
    repeat_odd_pairs<Dim>(block, args, notes, reinterpret_cast<float*>(shared));
  });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
