// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of queries, outputs and their gradients in shared memory: tiles of [rows, Dim] numbers of 16
// bits, `row_tile_pitch` bytes apart, as tiles of K and V are and for the same reason.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/fragments.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/cuda/detail/tile_reader.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

template <std::int32_t Dim>
inline constexpr std::int32_t row_tile_pitch = 2 * Dim + 16;

/// Sends 32 rows to shared memory; row i comes from row place(i) of `from`, which lane i finds.
/// Columns end up where load_matrices finds them paired with those of K. They are there after
/// `wait_copies` and a sync of the warp.
template <class KReader, std::int32_t Dim, half_element T, thread_block Block, class Place>
STRATA_DEVICE inline void send_rows(Block const& block, T const* from, std::byte* tile,
                                    Place&& place) {
  auto const own = place(lane_of(block));
  constexpr bool in_order = KReader::query_column(0, 1, 0) == 2;
  constexpr std::int32_t bytes = in_order ? 16 : 4, pieces = 2 * Dim / bytes;
  for (std::int32_t i = lane_of(block); i < warp_size * pieces; i += warp_size) {
    auto const row = i / pieces, piece = i % pieces;
    auto const t = piece % 4, half = piece % (key_columns / 2) / 4;
    auto const column = in_order ? piece * 8 : KReader::query_column(piece / 8, t, 2 * half);
    block.template copy_async<bytes>(
        tile + row * row_tile_pitch<Dim> + bytes * piece,
        reinterpret_cast<std::byte const*>(from + block.shuffle(own, row) * Dim + column), true);
  }
}

/// The A of columns 16 step on of 16 rows.
template <std::int32_t Dim, thread_block Block>
STRATA_DEVICE inline void load_row_operand(Block const& block, std::byte const* tile,
                                           std::int32_t step, std::uint32_t (&a)[4]) {
  auto const at = matrix_row_a(lane_of(block));
  block.load_matrices(a,
                      tile + at.row * row_tile_pitch<Dim> + 2 * (step * key_columns + at.column));
}

/// Writes the first `count` rows of a tile of `rows`, row i to row place(i) of `to`.
template <std::int32_t Dim, half_element T, thread_block Block, class Place>
STRATA_DEVICE inline void store_rows(Block const& block, std::byte const* tile, std::int32_t count,
                                     std::int32_t rows, T* to, Place&& place) {
  constexpr std::int32_t pieces = 2 * Dim / 16;
  for (std::int32_t i = lane_of(block); i < rows * pieces; i += warp_size) {
    auto const row = i / pieces, piece = i % pieces;
    if (row < count)
      *reinterpret_cast<chunk*>(reinterpret_cast<std::byte*>(to + place(row) * Dim) + 16 * piece) =
          *reinterpret_cast<chunk const*>(tile + row * row_tile_pitch<Dim> + 16 * piece);
  }
}

/// The row block that is as far from the end of its (sequence, KV head) as `rows` is from the
/// beginning.
template <class T, class View>
STRATA_DEVICE inline row_block mirrored(query_rows<T> const& q, View const& view, row_block rows,
                                        std::int32_t block_rows) {
  auto const pairs = (q.row_end(rows.seq) - q.row_begin(rows.seq)) * (q.q_heads / view.kv_heads);
  auto const number = ceil_divide(pairs, block_rows) - 1 - rows.first_pair / block_rows;
  rows.first_pair = number * block_rows;
  rows.pairs = smaller(block_rows, pairs - rows.first_pair);
  return rows;
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
