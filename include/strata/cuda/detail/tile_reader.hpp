// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of K and V in shared memory as operands of matrix products. A tile is [rows, Dim], its rows
// as they lie in the cache, `pitch` bytes apart: 16 more than a row has, an odd number of 16-byte
// units, so that the 8 rows that a matrix load reads at a time lie in different banks.
//
// Numbers of 8 bits become operands of 16 on their way to registers, exactly; their scales go into
// scores and weights. A lane then reads 4 adjacent numbers at a time. Which of them meets which is
// free: the columns of K are paired with those of the queries in the order in which K lies
// (`query_column`), and V's may come out in any order that is known (`value_column`).
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/codec.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/fragments.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// Columns of K that one step of the product takes, and of V that one call of `values` brings.
inline constexpr std::int32_t key_columns = fragment_depth;
inline constexpr std::int32_t value_columns = 4 * fragment_columns;

/// - `row_bytes`, `pitch`  of a row in the cache, and in shared memory
/// - `span`                elements that share a scale; 0: no scales, or one for the whole head
/// - `scale_bytes`         of a row's scales, where there are spans
/// - `query_column(step, t, word)`   the first of two adjacent columns of the query that word `word`
///                                   of A must hold in lanes of lane % 4 == t, for columns 16 step on
/// - `keys(block, tile, step, b)`    16 keys: b[0] is the B of keys 0..7, b[1] that of 8..15
/// - `values(block, tile, part, b)`  16 tokens by columns 32 part .. 32 part + 31, as four B
/// - `value_column(part, j, column)` the column of V that column `column` of a product with b[j] is
template <class Codec, half_element T, std::int32_t Dim>
struct tile_reader;

/// What matrix kernels read as operands of T.
template <class Codec, class T>
concept tiled_codec = half_element<T> && requires { sizeof(tile_reader<Codec, T, 64>); };

template <half_element T, std::int32_t Dim>
struct tile_reader<plain_codec<T>, T, Dim> {
  static_assert(Dim % value_columns == 0);
  static constexpr std::int32_t row_bytes = 2 * Dim, pitch = row_bytes + 16;
  static constexpr std::int32_t span = 0, scale_bytes = 0;

  STRATA_DEVICE static constexpr std::int32_t query_column(std::int32_t step, std::int32_t t,
                                                           std::int32_t word) noexcept {
    return step * key_columns + 2 * t + 8 * (word / 2);
  }
  STRATA_DEVICE static constexpr std::int32_t value_column(std::int32_t part, std::int32_t j,
                                                           std::int32_t column) noexcept {
    return part * value_columns + j * fragment_columns + column;
  }

  template <thread_block Block>
  STRATA_DEVICE static void keys(Block const& block, std::byte const* tile, std::int32_t step,
                                 std::uint32_t (&b)[2][2]) {
    auto const at = matrix_row_b(lane_of(block));
    std::uint32_t words[4];
    block.load_matrices(words, tile + at.row * pitch + 2 * (step * key_columns + at.column));
    b[0][0] = words[0], b[0][1] = words[1];
    b[1][0] = words[2], b[1][1] = words[3];
  }

  template <thread_block Block>
  STRATA_DEVICE static void values(Block const& block, std::byte const* tile, std::int32_t part,
                                   std::uint32_t (&b)[4][2]) {
    auto const at = matrix_row_b_transposed(lane_of(block));
    for (std::int32_t half = 0; half < 2; ++half) {
      auto const column = part * value_columns + half * 16 + at.column;
      std::uint32_t words[4];
      block.load_matrices_transposed(words, tile + at.row * pitch + 2 * column);
      b[2 * half][0] = words[0], b[2 * half][1] = words[1];
      b[2 * half + 1][0] = words[2], b[2 * half + 1][1] = words[3];
    }
  }
};

/// Number `i` of four signed bytes as the high half of the float of the same value. All of it: 8
/// bits fit into the fraction of a bfloat16.
STRATA_DEVICE inline std::uint32_t int8_as_float(std::uint32_t bytes, std::int32_t i) noexcept {
  // 2^23 + 128 + x in the last bits of a float's fraction; the difference is exact.
  auto const biased = (bytes >> 8 * i & 0xFF) ^ 0x80;
  auto const shifted = strata::detail::bit_cast<float>(0x4B000000 | biased);
  return strata::detail::bit_cast<std::uint32_t>(shifted - 8388736.f);
}

/// Two of four signed bytes as numbers of T in a word.
template <half_element T, thread_block Block>
STRATA_DEVICE inline std::uint32_t widen_int8(Block const& block, std::uint32_t bytes,
                                              std::int32_t low, std::int32_t high) {
  auto const a = int8_as_float(bytes, low), b = int8_as_float(bytes, high);
  if constexpr (std::same_as<T, bfloat16>)
    return a >> 16 | (b & 0xFFFF0000);
  else
    return block.template pack<T>(strata::detail::bit_cast<float>(a),
                                  strata::detail::bit_cast<float>(b));
}

/// How operands are made of numbers of 8 bits; Widen: a word of four of them and two of their
/// numbers to a word of T.
template <half_element T, std::int32_t Dim, class Widen>
struct byte_tile_reader {
  static_assert(Dim % value_columns == 0);
  static constexpr std::int32_t row_bytes = Dim, pitch = row_bytes + 16;

  STRATA_DEVICE static constexpr std::int32_t query_column(std::int32_t step, std::int32_t t,
                                                           std::int32_t word) noexcept {
    return step * key_columns + 4 * t + 2 * (word / 2);
  }
  STRATA_DEVICE static constexpr std::int32_t value_column(std::int32_t part, std::int32_t j,
                                                           std::int32_t column) noexcept {
    return part * value_columns + 4 * column + j;
  }

  template <thread_block Block>
  STRATA_DEVICE static void keys(Block const& block, std::byte const* tile, std::int32_t step,
                                 std::uint32_t (&b)[2][2]) {
    auto const lane = lane_of(block);
    for (std::int32_t i = 0; i < 2; ++i) {
      auto const four = word(tile + (lane / 4 + 8 * i) * pitch + step * key_columns + lane % 4 * 4);
      b[i][0] = Widen::template pair<T>(block, four, 0, 1);
      b[i][1] = Widen::template pair<T>(block, four, 2, 3);
    }
  }

  template <thread_block Block>
  STRATA_DEVICE static void values(Block const& block, std::byte const* tile, std::int32_t part,
                                   std::uint32_t (&b)[4][2]) {
    auto const lane = lane_of(block);
    auto const* const at = tile + part * value_columns + lane / 4 * 4;
    for (std::int32_t half = 0; half < 2; ++half) {
      auto const row = 2 * (lane % 4) + 8 * half;
      auto const low = word(at + row * pitch), high = word(at + (row + 1) * pitch);
      // Two tokens of each column: bytes j of both words, brought side by side.
      for (std::int32_t j = 0; j < 4; ++j) {
        auto const pair = (low >> 8 * j & 0xFF) | (high >> 8 * j & 0xFF) << 8;
        b[j][half] = Widen::template pair<T>(block, pair, 0, 1);
      }
    }
  }

 private:
  STRATA_DEVICE static std::uint32_t word(std::byte const* at) noexcept {
    return *reinterpret_cast<std::uint32_t const*>(at);
  }
};

struct int8_widening {
  template <half_element T, thread_block Block>
  STRATA_DEVICE static std::uint32_t pair(Block const& block, std::uint32_t bytes, std::int32_t low,
                                          std::int32_t high) {
    return widen_int8<T>(block, bytes, low, high);
  }
};

struct e4m3_widening {
  template <half_element T, thread_block Block>
  STRATA_DEVICE static std::uint32_t pair(Block const& block, std::uint32_t bytes, std::int32_t low,
                                          std::int32_t high) {
    return block.template widen_e4m3<T>((bytes >> 8 * low & 0xFF) | (bytes >> 8 * high & 0xFF)
                                                                        << 8);
  }
};

/// One scale for the whole head: it goes into the scale of scores, and into outputs.
template <half_element T, std::int32_t Dim>
struct tile_reader<fp8_codec, T, Dim> : byte_tile_reader<T, Dim, e4m3_widening> {
  static constexpr std::int32_t span = 0, scale_bytes = 0;
};

template <half_element T, std::int32_t Dim>
struct tile_reader<int8_codec, T, Dim> : byte_tile_reader<T, Dim, int8_widening> {
  static constexpr std::int32_t span = int8_codec::span;
  static constexpr std::int32_t scale_bytes = Dim / span * 2;
};

/// What weights are rounded to before they meet values: V's own type where it has 16 bits. Weights
/// times the scales of int8 can be small: bfloat16. Every e4m3 is a float16, the finer type.
template <class Codec>
struct weight_element {
  using type = bfloat16;
};
template <half_element Element>
struct weight_element<plain_codec<Element>> {
  using type = Element;
};
template <>
struct weight_element<fp8_codec> {
  using type = float16;
};
template <class Codec>
using weight_element_t = typename weight_element<Codec>::type;

/// The scale that all rows of a KV head of one sequence share; 1 where a codec has none such.
/// `token` is one that exists.
template <class Codec, class Blocks>
STRATA_DEVICE inline float head_scale(Blocks const& blocks, std::int32_t seq, std::int32_t head,
                                      std::int32_t kv_heads, std::int32_t token) {
  if constexpr (head_scaled_codec<Codec>)
    return *reinterpret_cast<float const*>(
        blocks.scales_at(blocks.row(seq, head, kv_heads), head, token));
  else
    return 1;
}

/// Whether a row's scales are as many bytes as a copy brings.
constexpr bool scales_copied(std::int32_t bytes) noexcept {
  return bytes == 0 || bytes == 4 || bytes == 8 || bytes % 16 == 0;
}

/// A view that matrix kernels read for queries of T.
template <class View, class T>
concept tiled_view = tiled_codec<typename View::k_codec, T> &&
                     tiled_codec<typename View::v_codec, weight_element_t<typename View::v_codec>>;

/// The same for heads of Dim: int8 of 96 or 160 elements has scales that no copy brings.
template <class View, class T, std::int32_t Dim>
concept tiled_call =
    tiled_view<View, T> &&
    scales_copied(tile_reader<typename View::k_codec, T, Dim>::scale_bytes) &&
    scales_copied(tile_reader<typename View::v_codec, weight_element_t<typename View::v_codec>,
                              Dim>::scale_bytes);

}  // namespace cuda::detail

STRATA_NAMESPACE_END
