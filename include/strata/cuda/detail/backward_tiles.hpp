// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What both launches of backward by matrix products do. A block owns 128 rows, of queries or of
// tokens, in shared memory, 16 to a warp; rows of the other kind come by in stages of 32, the next
// one on its way meanwhile. Owned rows are the rows of A and the others the columns of B, so
// weights and their gradients stay in registers from the products that make them to those that use
// them.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/backward_fma.hpp>
#include <strata/cuda/detail/backward_pairs.hpp>
#include <strata/cuda/detail/fragment_softmax.hpp>
#include <strata/cuda/detail/row_tiles.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/cuda/detail/tile_copy.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t backward_threads = 256;
inline constexpr std::int32_t backward_warps = backward_threads / warp_size;
inline constexpr std::int32_t backward_rows = backward_warps * fragment_rows;
inline constexpr std::int32_t backward_stage_rows = pairs_of_tile;
inline constexpr std::int32_t backward_stages = 2;
/// Fragments of scores: 16 owned rows by 8 of the others.
inline constexpr std::int32_t backward_fragments = backward_stage_rows / fragment_columns;

/// Q and d_out of `Pairs` pairs in shared memory, and their facts.
template <std::int32_t Dim, std::int32_t Pairs>
struct pair_tiles {
  static constexpr std::int32_t d_out_offset = Pairs * row_tile_pitch<Dim>;
  static constexpr std::int32_t facts_offset = 2 * d_out_offset;
  static constexpr std::int32_t bytes =
      facts_offset + Pairs * static_cast<std::int32_t>(sizeof(pair_facts));
};

/// Sends a warp's share, `Rows` rows from `first_row` on, of the pairs from `first` on to a stage
/// of `Tiles`; zeros, which count nothing, where there is no pair.
template <std::int32_t Dim, class Tiles, std::int32_t Rows, class T, class View, thread_block Block>
STRATA_DEVICE inline void copy_pairs(Block const& block, backward_args<T, View> const& args,
                                     std::int32_t seq, std::int32_t kv_head, std::int32_t first,
                                     std::int32_t pairs, std::int32_t first_row, std::byte* stage) {
  constexpr std::int32_t pieces = 2 * Dim / 16;
  static_assert(Rows * pieces % warp_size == 0);
  // A lane finds one of the rows, and the others ask it.
  auto const own_row = first + first_row + lane_of(block) % Rows;
  auto const own = pair_row(args.q, args.view, seq, kv_head, own_row < pairs ? own_row : 0);
  for (std::int32_t i = lane_of(block); i < Rows * pieces; i += warp_size) {
    auto const row = first_row + i / pieces, byte = i % pieces * 16;
    bool const exists = pairs > first + row;
    auto const at = block.shuffle(own, i / pieces) * Dim;
    auto* const to = stage + row * row_tile_pitch<Dim> + byte;
    block.template copy_async<16>(to, reinterpret_cast<std::byte const*>(args.q.q + at) + byte,
                                  exists);
    block.template copy_async<16>(to + Tiles::d_out_offset,
                                  reinterpret_cast<std::byte const*>(args.d_out + at) + byte,
                                  exists);
  }
  if (auto const row = first_row + lane_of(block); lane_of(block) < Rows)
    block.template copy_async<16>(
        stage + Tiles::facts_offset + row * static_cast<std::int32_t>(sizeof(pair_facts)),
        reinterpret_cast<std::byte const*>(args.facts_of(seq, kv_head) + first + row),
        pairs > first + row);
}

/// products = 16 rows of `owned` by all rows of a stage.
template <std::int32_t Dim, half_element T, std::int32_t N, thread_block Block>
STRATA_DEVICE inline void multiply_rows(Block const& block, std::byte const* owned,
                                        std::byte const* stage, float (&products)[N][4]) {
  using reader = tile_reader<plain_codec<T>, T, Dim>;
  unrolled<4 * N>([&](std::int32_t i) { products[i / 4][i % 4] = 0; });
  for (std::int32_t step = 0; step < Dim / key_columns; ++step) {
    std::uint32_t a[4];
    load_row_operand<Dim>(block, owned, step, a);
    unrolled<N / 2>([&](std::int32_t pair) {
      std::uint32_t b[2][2];
      reader::keys(block, stage + pair * 2 * fragment_columns * reader::pitch, step, b);
      block.template multiply_add<T>(products[2 * pair], a, b[0]);
      block.template multiply_add<T>(products[2 * pair + 1], a, b[1]);
    });
  }
}

/// sums += weights of all rows of a stage, rounded to T, by those rows.
template <std::int32_t Dim, half_element T, std::int32_t N, thread_block Block>
STRATA_DEVICE inline void add_rows(Block const& block, float const (&weights)[N][4],
                                   std::byte const* stage,
                                   float (&sums)[Dim / fragment_columns][4]) {
  using reader = tile_reader<plain_codec<T>, T, Dim>;
  unrolled<N / 2>([&](std::int32_t pair) {
    float const both[2][4] = {
        {weights[2 * pair][0], weights[2 * pair][1], weights[2 * pair][2], weights[2 * pair][3]},
        {weights[2 * pair + 1][0], weights[2 * pair + 1][1], weights[2 * pair + 1][2],
         weights[2 * pair + 1][3]}};
    std::uint32_t a[4];
    as_left_operand<T>(block, both, a);
    unrolled<Dim / value_columns>([&](std::int32_t part) {
      std::uint32_t b[4][2];
      reader::values(block, stage + pair * 2 * fragment_columns * reader::pitch, part, b);
      unrolled<4>(
          [&](std::int32_t j) { block.template multiply_add<T>(sums[part * 4 + j], a, b[j]); });
    });
  });
}

/// Whether row g + 8 i of the sums is finite, in each of its lanes.
template <std::int32_t N, thread_block Block>
STRATA_DEVICE inline bool row_finite(Block const& block, float const (&sums)[N][4],
                                     std::int32_t i) {
  float spread = 0;  // stays 0, or becomes NaN
  unrolled<N>([&](std::int32_t j) {
    spread += sums[j][2 * i] - sums[j][2 * i];
    spread += sums[j][2 * i + 1] - sums[j][2 * i + 1];
  });
  for (std::int32_t mask = 1; mask < 4; mask *= 2) spread += block.shuffle_xor(spread, mask);
  return spread == 0;
}

/// Calls body(row) for every one of a warp's 16 rows that is odd: odd[i] says whether row g + 8 i
/// is.
template <thread_block Block, class Body>
STRATA_DEVICE inline void for_each_odd_row(Block const& block, bool const (&odd)[2], Body&& body) {
  if (!block.any(odd[0] || odd[1])) return;
  for (std::int32_t row = 0; row < fragment_rows; ++row)
    if (block.any(lane_of(block) / 4 == row % 8 && (row < 8 ? odd[0] : odd[1]))) body(row);
}

/// dQ of up to 16 pairs, by a warp: those of `rows` from number `first` on, whose sums, over scale,
/// these are. It goes out by way of `tile`, [16, Dim] of T.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void store_queries(Block const& block, backward_args<T, View> const& args,
                                        row_block const& rows, std::int32_t first,
                                        float const (&sums)[Dim / fragment_columns][4],
                                        std::byte* tile) {
  bool odd[2];
  unrolled<2>([&](std::int32_t i) {
    auto const row = fragment_row(lane_of(block), 2 * i);
    bool const finite = row_finite(block, sums, i);
    odd[i] = first + row < rows.pairs && !finite;
    auto* const to = reinterpret_cast<T*>(tile + row * row_tile_pitch<Dim>);
    unrolled<2 * (Dim / fragment_columns)>([&](std::int32_t j) {
      to[j / 2 * fragment_columns + fragment_column(lane_of(block), j % 2)] =
          strata::detail::narrow<T>(sums[j / 2][2 * i + j % 2] * args.rule.scale);
    });
  });
  block.sync_warp();
  auto const place = [&](std::int32_t i) {
    return pair_row(args.q, args.view, rows.seq, rows.kv_head, rows.first_pair + first + i);
  };
  store_rows<Dim>(block, tile, rows.pairs - first, fragment_rows, args.d_q, place);
  block.sync_warp();
  for_each_odd_row(block, odd, [&](std::int32_t row) {
    query_gradient<ceil_divide(Dim, chunk_elements * warp_size)>(
        block, args, rows.seq, rows.kv_head, rows.first_pair + first + row);
  });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
