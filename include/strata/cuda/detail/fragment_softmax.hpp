// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention of 16 query rows in the registers of a warp: products with tiles of K and V, and the
// softmax between them, in base 2. A fragment of scores is 16 rows by 8 keys;
// fragments.hpp says which lane holds what. Rows g and g + 8 of 16 belong to four lanes each.
//
// Weights are rounded to 16 bits before they meet values, as everywhere; sums of weights are not.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/fragments.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/row_sight.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/cuda/detail/tile_reader.hpp>
#include <strata/detail/key_range.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// From dot products to what `weigh` takes, of rows that see all of the keys or are masked next:
/// scores in base 2, or still dot products where those are linear.
template <std::int32_t N, thread_block Block>
STRATA_DEVICE inline void score_fragments(Block const& block, fragment_scorer const& scorer,
                                          float (&scores)[N][4]) {
  if (scorer.linear()) return;
  unrolled<4 * N>([&](std::int32_t i) {
    auto& x = scores[i / 4][i % 4];
    float slope;
    x = scorer.score(block, x, slope);
  });
}

/// Whether all rows see `count` keys from `first` on, by the bounds.
STRATA_DEVICE inline bool all_seen(key_range const& keys, sight_bounds const& bounds,
                                   std::int32_t first, std::int32_t count) {
  auto const last = first + count - 1;
  return first >= keys.begin && last < keys.end &&
         bounds.all_see(keys.position(first), keys.position(last));
}

/// -inf where a row does not see a key. The first key is token `first`.
template <std::int32_t N, thread_block Block>
STRATA_DEVICE inline void mask_fragments(Block const& block, key_range const& keys,
                                         row_sight const (&rows)[2], std::int32_t first,
                                         float (&scores)[N][4]) {
  unrolled<2 * N>([&](std::int32_t j) {
    auto const n = j / 2, c = j % 2;
    auto const key = first + n * fragment_columns + fragment_column(lane_of(block), c);
    bool const exists = key >= keys.begin && key < keys.end;
    auto const position = exists ? keys.position(key) : 0;
    for (std::int32_t i = 0; i < 2; ++i)
      if (!exists || !rows[i].sees(position)) scores[n][2 * i + c] = minus_infinity;
  });
}

/// How far a maximum may grow, in base 2, before sums are brought to it: weights are then up to
/// 2^8, which neither float nor float16 minds. Most of the rescaling of a row's sums is not needed
/// (FlashAttention-4's rule): a fifth of prefill's instructions on an H100 were.
inline constexpr float idle_growth = 8;

/// Softmax and weighted values of 16 rows.
template <std::int32_t Dim>
struct fragment_state {
  float out[Dim / fragment_columns][4] = {};  // columns in the order of the reader of V
  float max[2] = {minus_infinity, minus_infinity};
  float sum[2] = {};  // a lane's part

  /// From what `score_fragments` leaves to weights. Sums so far are brought to the new maximum,
  /// where it has grown by much: `max` is what the weights are relative to.
  template <std::int32_t N, thread_block Block>
  STRATA_DEVICE void weigh(Block const& block, fragment_scorer const& scorer,
                           float (&scores)[N][4]) {
    float const scale = scorer.linear() ? scorer.factor : 1.f;
    float factor[2];
    unrolled<2>([&](std::int32_t i) {
      float joint = minus_infinity;
      unrolled<N>([&](std::int32_t n) {
        joint = std::fmax(joint, std::fmax(scores[n][2 * i], scores[n][2 * i + 1]));
      });
      for (std::int32_t mask = 1; mask < 4; mask *= 2)
        joint = std::fmax(joint, block.shuffle_xor(joint, mask));
      joint *= scale;
      factor[i] = 1;
      if (joint > max[i] + idle_growth || max[i] == minus_infinity) {
        joint = std::fmax(joint, max[i]);
        factor[i] = decay(block, max[i], joint);
        max[i] = joint;
      }
      sum[i] *= factor[i];
      float const origin = max[i] == minus_infinity ? 0.f : max[i];  // then all weights are 0
      unrolled<2 * N>([&](std::int32_t j) {
        auto& x = scores[j / 2][2 * i + j % 2];
        x = block.exp2(std::fma(x, scale, -origin));
        sum[i] += x;
      });
    });
    if (!block.any(factor[0] != 1 || factor[1] != 1)) return;
    unrolled<Dim / fragment_columns>([&](std::int32_t j) {
      for (std::int32_t i = 0; i < 4; ++i) out[j][i] *= factor[i / 2];
    });
  }

  /// Every lane of a row then has all of its sum.
  template <thread_block Block>
  STRATA_DEVICE void collect(Block const& block) {
    for (auto& x : sum)
      for (std::int32_t mask = 1; mask < 4; mask *= 2) x += block.shuffle_xor(x, mask);
  }

  /// Calls body(column, value) for what this lane has of row g + 8 i.
  template <class Reader, class Body>
  STRATA_DEVICE void for_each_column(std::int32_t lane, std::int32_t i, Body&& body) const {
    unrolled<Dim / fragment_columns>([&](std::int32_t j) {
      for (std::int32_t c = 0; c < 2; ++c)
        body(Reader::value_column(j / 4, j % 4, fragment_column(lane, c)), out[j][2 * i + c]);
    });
  }
};

/// The scale of a span of row `row`.
template <class Reader>
STRATA_DEVICE inline float tile_scale(std::byte const* scales, std::int32_t row,
                                      std::int32_t span) {
  float16 x;
  std::memcpy(&x, scales + row * Reader::scale_bytes + 2 * span, sizeof x);
  return to_float(x);
}

/// sums[m][n] += query rows m times the keys 8 n on from row `first` of a stage, columns 16 step
/// on.
template <class Tiles, half_element T, std::int32_t M, std::int32_t N, thread_block Block,
          class Query>
STRATA_DEVICE inline void multiply_step(Block const& block, std::byte const* stage,
                                        std::int32_t first, std::int32_t step, Query&& query,
                                        float (&sums)[M][N][4]) {
  using reader = typename Tiles::k_reader;
  std::uint32_t a[M][4];
  unrolled<M>([&](std::int32_t m) { query(step, m, a[m]); });
  unrolled<N / 2>([&](std::int32_t pair) {
    std::uint32_t b[2][2];
    reader::keys(block, stage + (first + pair * 2 * fragment_columns) * reader::pitch, step, b);
    unrolled<M>([&](std::int32_t m) {
      block.template multiply_add<T>(sums[m][2 * pair], a[m], b[0]);
      block.template multiply_add<T>(sums[m][2 * pair + 1], a[m], b[1]);
    });
  });
}

/// scores[m][n] of query rows m and the keys 8 n on from row `first` of a stage: dot products.
/// query(step, m, a) brings an A.
template <class Tiles, half_element T, std::int32_t Dim, std::int32_t M, std::int32_t N,
          thread_block Block, class Query>
STRATA_DEVICE inline void multiply_keys(Block const& block, std::byte const* stage,
                                        std::int32_t first, Query&& query,
                                        float (&scores)[M][N][4]) {
  using reader = typename Tiles::k_reader;
  constexpr std::int32_t steps = Dim / key_columns;
  for (auto& row : scores)
    for (auto& fragment : row)
      for (auto& x : fragment) x = 0;
  if constexpr (reader::span == 0) {
    for (std::int32_t step = 0; step < steps; ++step)
      multiply_step<Tiles, T>(block, stage, first, step, query, scores);
  } else {
    // A second set of sums is in registers, so 16 keys at a time.
    constexpr std::int32_t steps_of_span = reader::span / key_columns;
    unrolled<N / 2 * (Dim / reader::span)>([&](std::int32_t i) {
      auto const pair = i / (Dim / reader::span), span = i % (Dim / reader::span);
      auto const row = first + pair * 2 * fragment_columns;
      float sums[M][2][4] = {};
      unrolled<steps_of_span>([&](std::int32_t step) {
        multiply_step<Tiles, T>(block, stage, row, span * steps_of_span + step, query, sums);
      });
      unrolled<8>([&](std::int32_t j) {
        auto const n = j / 4, c = j % 4;
        auto const own = row + n * fragment_columns + fragment_column(lane_of(block), c);
        float const scale = tile_scale<reader>(stage + Tiles::k_scale_offset, own, span);
        for (std::int32_t m = 0; m < M; ++m) scores[m][2 * pair + n][c] += sums[m][n][c] * scale;
      });
    });
  }
}

/// Weights of the keys from row `first` of a stage, as an A of 16 of them; times the scales of a
/// span where V has some.
template <class Tiles, thread_block Block>
STRATA_DEVICE inline void weights_as_operand(Block const& block, std::byte const* stage,
                                             std::int32_t first, std::int32_t span,
                                             float const (&low)[4], float const (&high)[4],
                                             std::uint32_t (&a)[4]) {
  using reader = typename Tiles::v_reader;
  float weights[2][4];
  for (std::int32_t i = 0; i < 4; ++i) {
    weights[0][i] = low[i], weights[1][i] = high[i];
    if constexpr (reader::span > 0)
      for (std::int32_t n = 0; n < 2; ++n) {
        auto const row = first + n * fragment_columns + fragment_column(lane_of(block), i);
        weights[n][i] *= tile_scale<reader>(stage + Tiles::v_scale_offset, row, span);
      }
  }
  as_left_operand<typename Tiles::weight>(block, weights, a);
}

/// Adds the values of the keys from row `first` of a stage, weighted, to rows m.
template <class Tiles, std::int32_t Dim, std::int32_t M, std::int32_t N, thread_block Block>
STRATA_DEVICE inline void add_values(Block const& block, std::byte const* stage, std::int32_t first,
                                     float const (&weights)[M][N][4],
                                     fragment_state<Dim> (&rows)[M]) {
  using reader = typename Tiles::v_reader;
  static_assert(reader::span == 0 || reader::span == value_columns);
  constexpr std::int32_t parts = Dim / value_columns;
  unrolled<N / 2>([&](std::int32_t pair) {
    auto const row = first + pair * 2 * fragment_columns;
    std::uint32_t a[M][4];
    unrolled<parts>([&](std::int32_t part) {
      if (part == 0 || reader::span > 0)
        unrolled<M>([&](std::int32_t m) {
          weights_as_operand<Tiles>(block, stage, row, part, weights[m][2 * pair],
                                    weights[m][2 * pair + 1], a[m]);
        });
      std::uint32_t b[4][2];
      reader::values(block, stage + Tiles::v_offset + row * reader::pitch, part, b);
      unrolled<4 * M>([&](std::int32_t i) {
        block.template multiply_add<typename Tiles::weight>(rows[i / 4].out[part * 4 + i % 4],
                                                            a[i / 4], b[i % 4]);
      });
    });
  });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
