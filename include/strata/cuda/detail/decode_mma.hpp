// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Decode by matrix products: up to 16 pairs of a query row and a query head of one KV head are the
// rows of A, so K and V are read once for all of them. Four warps take 16 keys each in turn; each
// brings its own K and V into its own part of shared memory, a few tiles ahead, and has softmax and
// sums of its own: the warps of a block meet only when a piece ends.
//
// Bytes on their way: 4 warps x 3 tiles x 16 keys x 512 bytes (head_dim 128, 16 bits) are 96 KB a
// block, and two blocks fit into a multiprocessor; 26 KB each would do (4.3 TB/s, 0.8 us, 132 of
// them).
//
// Rows whose result is not finite are computed again by plain multiply-adds: in a matrix
// product a masked key of infinite value would count, 0 times infinity.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/decode_fma.hpp>
#include <strata/cuda/detail/fragment_softmax.hpp>
#include <strata/cuda/detail/fragments.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/cuda/detail/tile_copy.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t decode_tile_keys = 16;  // of a warp
inline constexpr std::int32_t decode_stages = 3;

/// One warp's tiles in shared memory.
template <class T, class View, std::int32_t Dim>
struct decode_tiles : kv_tiles<T, View, Dim, decode_tile_keys> {
  using stage = kv_tiles<T, View, Dim, decode_tile_keys>;
  static constexpr std::int32_t stage_bytes = stage::bytes;
  static constexpr std::int32_t warp_bytes = decode_stages * stage_bytes;

  /// Room for the tiles, and later for the warps' results; then for those of plain multiply-adds.
  static constexpr std::int32_t bytes() {
    constexpr std::int32_t results =
        decode_warps * fragment_rows * (Dim + 2) * static_cast<std::int32_t>(sizeof(float));
    return decode_warps * warp_bytes > results ? decode_warps * warp_bytes : results;
  }
};

/// The rows of one piece in one warp.
template <class T, class View, std::int32_t Dim>
class mma_rows {
 public:
  using tiles = typename decode_tiles<T, View, Dim>::stage;
  using k_reader = typename tiles::k_reader;
  using v_reader = typename tiles::v_reader;
  static constexpr std::int32_t steps = Dim / key_columns;

  template <thread_block Block>
  STRATA_DEVICE mma_rows(Block const& block, forward_args<T, View> const& args, piece const& p)
      : args_(args),
        keys_(p.keys),
        scorer_(args.rule.fragments.times(head_scale<typename View::k_codec>(
            args.view.k, p.seq, p.kv_head, args.view.kv_heads, p.keys.begin))) {
    auto const& q = args.q;
    std::int64_t at[2];
    std::int32_t positions[2];
    for (std::int32_t i = 0; i < 2; ++i) {
      // Rows that are none repeat the last one: they are computed and dropped.
      auto const pair = smaller(fragment_row(lane_of(block), 2 * i), p.pairs - 1);
      at[i] = pair_row(q, args.view, p.seq, p.kv_head, p.first_pair + pair);
      positions[i] =
          q.position(p.seq, static_cast<std::int32_t>(at[i] / q.q_heads), keys_.end_position);
    }
    sight_ = fragment_sight(block, q.rule, positions);
    for (std::int32_t step = 0; step < steps; ++step)
      for (std::int32_t word = 0; word < 4; ++word) {
        auto const column = k_reader::query_column(step, lane_of(block) % 4, word);
        // Not by memcpy, which reads bytes where it is not told that rows are aligned: fits_tiles.
        query_[step][word] =
            *reinterpret_cast<std::uint32_t const*>(q.q + at[word % 2] * Dim + column);
      }
  }

  /// Takes 16 keys from `first` on, which lie in `stage`.
  template <thread_block Block>
  STRATA_DEVICE void take(Block const& block, std::byte const* stage, std::int32_t first) {
    auto const query = [&](std::int32_t step, std::int32_t, std::uint32_t(&a)[4]) {
      for (std::int32_t word = 0; word < 4; ++word) a[word] = query_[step][word];
    };
    float scores[1][2][4];
    multiply_keys<tiles, T, Dim>(block, stage, 0, query, scores);
    score_fragments(block, scorer_, scores[0]);
    if (!all_seen(keys_, sight_.bounds, first, decode_tile_keys))
      mask_fragments(block, keys_, sight_.rows, first, scores[0]);
    state_[0].weigh(block, scorer_, scores[0]);
    add_values<tiles>(block, stage, 0, scores, state_);
  }

  /// Stores what this warp has: results [16, Dim + 2], as the rows of states.
  template <thread_block Block>
  STRATA_DEVICE void store(Block const& block, float* results) {
    auto const lane = lane_of(block);
    auto& state = state_[0];
    state.collect(block);
    for (std::int32_t i = 0; i < 2; ++i) {
      float* const row = results + fragment_row(lane, 2 * i) * (Dim + 2);
      state.template for_each_column<v_reader>(
          lane, i, [&](std::int32_t column, float x) { row[column] = x; });
      if (lane % 4 == 0) row[Dim] = state.max[i], row[Dim + 1] = state.sum[i];
    }
  }

 private:
  forward_args<T, View> const& args_;
  key_range keys_;
  fragment_scorer scorer_;
  fragment_sight sight_;
  std::uint32_t query_[steps][4];
  fragment_state<Dim> state_[1];
};

template <class T, class View, std::int32_t Dim>
using decode_copier =
    tile_copier<typename decode_tiles<T, View, Dim>::stage, View, decode_tile_keys>;

/// The tiles of one warp in a piece: every fourth of 16 keys.
template <class T, class View, std::int32_t Dim, thread_block Block>
STRATA_DEVICE inline void walk_tiles(Block const& block, piece const& p, std::byte* stages,
                                     decode_copier<T, View, Dim>& copier,
                                     mma_rows<T, View, Dim>& rows) {
  using tiles = decode_tiles<T, View, Dim>;
  constexpr std::int32_t step = decode_warps * decode_tile_keys;
  // The first tile that holds a key of the piece. Tiles begin at multiples of 16.
  auto const begin = p.keys.begin / decode_tile_keys * decode_tile_keys;
  auto const own = begin + warp_of(block) * decode_tile_keys;
  auto const count = p.keys.end > own ? ceil_divide(p.keys.end - own, step) : 0;
  auto const stage = [&](std::int32_t i) {
    return stages + i % decode_stages * tiles::stage_bytes;
  };
  auto const send = [&](std::int32_t i) {
    if (i < count) copier.copy(block, stage(i));
    if (i + 1 < count) copier.find(own + (i + 1) * step);
    block.commit_copies();
  };
  if (count > 0) copier.find(own);
  for (std::int32_t i = 0; i < decode_stages - 1; ++i) send(i);
  for (std::int32_t i = 0; i < count; ++i) {
    block.template wait_copies<decode_stages - 2>();
    block.sync_warp();  // all lanes' copies are seen, and the tile before is no longer read
    send(i + decode_stages - 1);
    rows.take(block, stage(i), own + i * step);
  }
  block.template wait_copies<0>();
}

/// Merges the warps' results into the states of a piece's rows: [warps, 16, Dim + 2], 8 threads to
/// a row; values times `scale`. Returns whether a thread met a value that is not finite.
template <std::int32_t Dim, thread_block Block>
STRATA_DEVICE inline bool merge_results(Block const& block, float const* results, piece const& p,
                                        state_memory const& states, float scale) {
  constexpr std::int32_t width = Dim + 2, threads_of_row = decode_threads / fragment_rows;
  auto const row = block.thread() / threads_of_row;
  if (row >= p.pairs) return false;
  auto const* const own = results + row * width;
  float joint = minus_infinity, sum = 0, weight[decode_warps];
  for (std::int32_t w = 0; w < decode_warps; ++w)
    joint = larger(joint, own[w * fragment_rows * width + Dim]);
  for (std::int32_t w = 0; w < decode_warps; ++w) {
    auto const* const other = own + w * fragment_rows * width;
    weight[w] = decay(block, other[Dim], joint);
    sum += weight[w] * other[Dim + 1];
  }
  float* const to = states.row(p.state, row);
  bool finite = sum - sum == 0;
  for (auto j = block.thread() % threads_of_row; j < Dim; j += threads_of_row) {
    float x = 0;
    for (std::int32_t w = 0; w < decode_warps; ++w)
      x += weight[w] * own[w * fragment_rows * width + j];
    finite = finite && x - x == 0;
    to[j] = x * scale;
  }
  if (block.thread() % threads_of_row == 0) states.store_softmax(to, joint, sum);
  return !finite;
}

/// The first launch of a forward call by matrix products.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void decode_mma_body(Block const& block, forward_args<T, View> const& args) {
  using line = schedule<Block, T, View>;
  using tiles = decode_tiles<T, View, Dim>;
  using fma = fma_pair<ceil_divide(Dim, chunk_elements * warp_size), T, View>;
  block.let_next_begin();
  auto* const shared = block.memory() + schedule_bytes(decode_threads);
  auto* const results = reinterpret_cast<float*>(shared);
  line(block, args.q, args.view, args.split, decode_threads, block.memory())
      .for_each_piece([&](piece const& p) {
        {
          decode_copier<T, View, Dim> copier(block, args.view, p.keys, p.seq, p.kv_head, 0);
          mma_rows<T, View, Dim> rows(block, args, p);
          walk_tiles(block, p, shared + warp_of(block) * tiles::warp_bytes, copier, rows);
          block.sync();  // results lie where tiles did
          rows.store(block, results + warp_of(block) * fragment_rows * (Dim + 2));
        }
        block.sync();
        float const scale = head_scale<typename View::v_codec>(args.view.v, p.seq, p.kv_head,
                                                               args.view.kv_heads, p.keys.begin);
        bool const odd = block.any(merge_results<Dim>(block, results, p, args.states, scale));
        if (any_warp(block, shared, decode_warps, odd))
          for (std::int32_t pair = 0; pair < p.pairs; ++pair)
            fma::run(block, args, p, pair, results);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
