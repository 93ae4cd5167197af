// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// dQ from the launch whose blocks own keys, where bits may differ from call to call: 5 products
// instead of 7, as FlashAttention-2 has it. The gradients of the scores of 128 tokens and 32 pairs
// meet in shared memory, and each warp multiplies a part of them, [16 pairs, 128 tokens], by K:
// what a block adds to the sums of dQ is summed over its 128 tokens first. That is 32 Dim floats
// for every 5 x 2^12 Dim multiply-adds: at head_dim 128 16 KB for some 2060 cycles at 1270 of them
// a cycle, so 132 multiprocessors add 1 KB a cycle, all of it in level 2. The launch takes 252
// registers (202 at head_dim 64), no spills (nvcc 13.0), and 118 KB of shared memory.
//
// Floats are added in the order in which blocks come by: the last bits of dQ differ from call to
// call; those of dK and dV do not.
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

/// dS / scale in shared memory, rounded: [128 tokens, 32 pairs], 80 bytes apart, so that the 8 rows
/// that a matrix load reads at a time, or the 8 that a warp writes, lie in different banks.
struct score_tile {
  static constexpr std::int32_t pitch = 2 * backward_stage_rows + 16;
  static constexpr std::int32_t bytes = backward_rows * pitch;

  /// Those of 16 tokens, from token `first` on, by a warp.
  template <half_element T, thread_block Block>
  STRATA_DEVICE static void store(Block const& block,
                                  float const (&d_scores)[backward_fragments][4], std::byte* tile,
                                  std::int32_t first) {
    unrolled<2 * backward_fragments>([&](std::int32_t j) {
      auto const n = j / 2, i = j % 2;
      auto const row = first + fragment_row(lane_of(block), 2 * i);
      auto const column = n * fragment_columns + fragment_column(lane_of(block), 0);
      *reinterpret_cast<std::uint32_t*>(tile + row * pitch + 2 * column) =
          block.template pack<T>(d_scores[n][2 * i], d_scores[n][2 * i + 1]);
    });
  }

  /// The A of 16 pairs, from pair `pair` on, by 16 tokens, from `token` on.
  template <thread_block Block>
  STRATA_DEVICE static void load(Block const& block, std::byte const* tile, std::int32_t pair,
                                 std::int32_t token, std::uint32_t (&a)[4]) {
    // Transposed, rows and columns of A change places, and with them its second and third matrix.
    auto const at = matrix_row_b(lane_of(block));
    block.load_matrices_transposed(a, tile + (token + at.row) * pitch + 2 * (pair + at.column));
  }
};

/// Adds what 128 tokens and 32 pairs bring to the pairs' sums. keys: [128, Dim]; seen(w): whether
/// any of the pairs sees any of the tokens of warp w, the same in all threads.
template <std::int32_t Dim, half_element T, thread_block Block, class Seen>
STRATA_DEVICE inline void add_to_queries(Block const& block, std::byte const* scores,
                                         std::byte const* keys, Seen&& seen, float* sums) {
  // Of a warp: 16 pairs by as many columns as leave none idle.
  constexpr std::int32_t width = Dim % (4 * value_columns) == 0 ? value_columns : 16;
  constexpr std::int32_t fragments = width / fragment_columns;
  for (auto part = warp_of(block); part < 2 * (Dim / width); part += backward_warps) {
    auto const pair = part % 2 * fragment_rows, column = part / 2 * width;
    float sum[fragments][4] = {};
    for (std::int32_t w = 0; w < backward_warps; ++w) {
      if (!seen(w)) continue;  // what lies there is older, or nothing
      std::uint32_t a[4];
      score_tile::load(block, scores, pair, w * fragment_rows, a);
      auto const at = matrix_row_b_transposed(lane_of(block));
      auto const* const row = keys + (w * fragment_rows + at.row) * row_tile_pitch<Dim>;
      unrolled<fragments / 2>([&](std::int32_t n) {
        std::uint32_t words[4];
        block.load_matrices_transposed(words, row + 2 * (column + 16 * n + at.column));
        std::uint32_t const b[2][2] = {{words[0], words[1]}, {words[2], words[3]}};
        block.template multiply_add<T>(sum[2 * n], a, b[0]);
        block.template multiply_add<T>(sum[2 * n + 1], a, b[1]);
      });
    }
    auto const first = (pair / fragment_rows * Dim + column) / fragment_columns;
    unrolled<fragments>([&](std::int32_t n) {
      block.add_fragment(sums + (first + n) * fragment_rows * fragment_columns, sum[n]);
    });
  }
}

inline constexpr std::int32_t backward_sums_threads = 128;
inline constexpr std::int32_t backward_sums_rows =
    backward_sums_threads / warp_size * fragment_rows;
template <std::int32_t Dim>
constexpr std::int32_t backward_sums_bytes =
    schedule_bytes(backward_sums_threads) + backward_sums_rows * row_tile_pitch<Dim>;

/// The last launch: dQ from its sums, 16 pairs to a warp. A pair whose sum is not finite is
/// computed again by plain multiply-adds.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void backward_sums_body(Block const& block,
                                             backward_args<T, View> const& args) {
  auto const first = warp_of(block) * fragment_rows;
  auto* const tile =
      block.memory() + schedule_bytes(backward_sums_threads) + first * row_tile_pitch<Dim>;
  auto const split = backward_split(backward_sums_rows);
  schedule<Block, T, View>(block, args.q, args.view, split, backward_sums_threads, block.memory())
      .for_each_row_block([&](row_block const& rows) {
        auto const pair = rows.first_pair + first;
        if (first >= rows.pairs) return;
        auto const* const sums = args.sums_of(rows.seq, rows.kv_head, pair) +
                                 pair % pairs_of_tile / fragment_rows * (fragment_rows * Dim);
        float sum[Dim / fragment_columns][4];
        unrolled<Dim / fragment_columns>([&](std::int32_t n) {
          block.load_fragment(sums + n * fragment_rows * fragment_columns, sum[n]);
        });
        store_queries<Dim>(block, args, rows, first, sum, tile);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
