// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which lane of a warp holds what of the matrices that `multiply_add` multiplies, and which rows of
// shared memory a lane names so that `load_matrices` brings it there. PTX ISA, mma.m16n8k16 and
// ldmatrix:
//
//   A  16 x 16  words 0..3: rows g, g + 8, g, g + 8; columns 2 t, 2 t + 1, and 8 more in words 2, 3
//   B  16 x 8   words 0..1: rows 2 t, 2 t + 1, and 8 more in word 1; column g
//   C  16 x 8   floats 0..3: row g, and g + 8 for 2, 3; columns 2 t, 2 t + 1
//
// where g = lane / 4 and t = lane % 4. So the C of two products side by side is the A of the next
// one: softmax weights stay in registers.
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t fragment_rows = 16;  // of A and C
inline constexpr std::int32_t fragment_depth = 16;
inline constexpr std::int32_t fragment_columns = 8;  // of B and C

/// Row and column of float i of C.
STRATA_DEVICE constexpr std::int32_t fragment_row(std::int32_t lane, std::int32_t i) noexcept {
  return lane / 4 + 8 * (i / 2);
}
STRATA_DEVICE constexpr std::int32_t fragment_column(std::int32_t lane, std::int32_t i) noexcept {
  return 2 * (lane % 4) + i % 2;
}

/// An element of a tile in shared memory: its row, and its column within the row.
struct tile_element {
  std::int32_t row = 0, column = 0;
};

/// What a lane names to load_matrices for A: a tile of [rows of A, columns of A].
STRATA_DEVICE constexpr tile_element matrix_row_a(std::int32_t lane) noexcept {
  return {lane % 16, 8 * (lane / 16)};
}
/// For two B side by side, from a tile of [columns of B, rows of B], as keys are for q . k: words
/// 0, 1 are the B of tile rows 0..7, words 2, 3 that of 8..15.
STRATA_DEVICE constexpr tile_element matrix_row_b(std::int32_t lane) noexcept {
  return {lane % 8 + 8 * (lane / 16), lane / 8 % 2 * 8};
}
/// For two B side by side, from a tile of [rows of B, columns of B] and transposed, as values are:
/// words 0, 1 are the B of tile columns 0..7, words 2, 3 that of 8..15.
STRATA_DEVICE constexpr tile_element matrix_row_b_transposed(std::int32_t lane) noexcept {
  return {lane % 16, 8 * (lane / 16)};
}

/// The C of two products side by side as an A of T, rounded: c[0] columns 0..7, c[1] columns 8..15.
template <class T, thread_block Block>
STRATA_DEVICE inline void as_left_operand(Block const& block, float const (&c)[2][4],
                                          std::uint32_t (&a)[4]) {
  a[0] = block.template pack<T>(c[0][0], c[0][1]);
  a[1] = block.template pack<T>(c[0][2], c[0][3]);
  a[2] = block.template pack<T>(c[1][0], c[1][1]);
  a[3] = block.template pack<T>(c[1][2], c[1][3]);
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
