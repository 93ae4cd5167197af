// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the inner loops of streamed attention share: how much they keep in registers, sums across
// the lanes of vectors, and the rows that they read. stream_scores.hpp has the dot products of keys
// and queries, stream_values.hpp the sums of weighted values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

// Sums in flight: an FMA takes 4 cycles and one or two start in each; a whole number of vectors,
// so that they are added up across lanes together; and half of the registers.
#if defined(__AVX512F__) || defined(__ARM_NEON)
inline constexpr std::int32_t vector_registers = 32;
#else
// With 16 registers 8 queries at a time are within 10% of this, up and down (AVX2 and SSE2, g++ and
// clang, f32, bf16 and f16, decode of 8192 tokens by 4 and 8 query heads); 12 sums: keys_together.
inline constexpr std::int32_t vector_registers = 16;
#endif
inline constexpr std::int32_t stream_sums = vector_registers / 2;
/// Queries that share a vector of the cache while it is in a register.
inline constexpr std::int32_t stream_pairs = stream_sums / 2;

inline constexpr std::size_t lanes_at_once = static_cast<std::size_t>(float_lanes::count);
inline constexpr std::int32_t lane_count = float_lanes::count;

template <std::size_t... Lane>
struct lane_sums {
  static constexpr std::size_t n = sizeof...(Lane), blocks = n / 4;

  /// Of x[0] .. x[n - 1]; the result's lane j is the sum of all lanes of x[j]. Within blocks of 4
  /// lanes first, where a shuffle costs least, then across them.
  static float_vec of(float_vec const* x) noexcept {
    float_vec sum[blocks];
    for (std::size_t i = 0; i < blocks; ++i, x += 4) sum[i] = fours(x);
    if constexpr (blocks > 1)
      for (auto count = blocks; count > 1; count /= 2)
        for (std::size_t i = 0; i < count / 2; ++i) sum[i] = across(sum[2 * i], sum[2 * i + 1]);
    return sum[0];
  }
  /// Of x[0] .. x[3]; each block of 4 lanes has the sums of that block in each.
  static float_vec fours(float_vec const* x) noexcept {
    return twos(ones(x[0], x[1]), ones(x[2], x[3]));
  }

 private:
  /// Of each block (a0 + a2, b0 + b2, a1 + a3, b1 + b3).
  static float_vec ones(float_vec a, float_vec b) noexcept {
    return __builtin_shufflevector(a, b, (Lane / 4 * 4 + Lane % 4 / 2 + Lane % 2 * n)...) +
           __builtin_shufflevector(a, b, (Lane / 4 * 4 + Lane % 4 / 2 + Lane % 2 * n + 2)...);
  }
  /// Of each block (a0 + a2, a1 + a3, b0 + b2, b1 + b3).
  static float_vec twos(float_vec a, float_vec b) noexcept {
    return __builtin_shufflevector(a, b, (Lane / 4 * 4 + Lane % 2 + Lane % 4 / 2 * n)...) +
           __builtin_shufflevector(a, b, (Lane / 4 * 4 + Lane % 2 + Lane % 4 / 2 * n + 2)...);
  }
  /// Even and odd blocks of a, then those of b.
  static float_vec across(float_vec a, float_vec b) noexcept {
    return __builtin_shufflevector(a, b, (Lane * 2 / n * n + Lane / 4 * 8 % n + Lane % 4)...) +
           __builtin_shufflevector(a, b, (Lane * 2 / n * n + Lane / 4 * 8 % n + Lane % 4 + 4)...);
  }
};

template <std::size_t... Lane>
float_vec sum_lanes(float_vec const* x, std::index_sequence<Lane...>) noexcept {
  return lane_sums<Lane...>::of(x);
}

template <std::size_t... Lane>
float_vec sum_fours(float_vec const* x, std::index_sequence<Lane...>) noexcept {
  return lane_sums<Lane...>::fours(x);
}

template <class Join, std::size_t... Lane>
float_vec fold(float_vec x, Join join, std::index_sequence<Lane...>) noexcept {
  constexpr auto n = sizeof...(Lane);
  if constexpr (n > 8) x = join(x, __builtin_shufflevector(x, x, ((Lane + 8) % n)...));
  if constexpr (n > 4) x = join(x, __builtin_shufflevector(x, x, ((Lane + 4) % n)...));
  x = join(x, __builtin_shufflevector(x, x, ((Lane + 2) % n)...));
  return join(x, __builtin_shufflevector(x, x, ((Lane + 1) % n)...));
}
inline float largest_lane(float_vec x) noexcept {
  auto const join = [](float_vec a, float_vec b) { return b > a ? b : a; };
  return fold(x, join, std::make_index_sequence<lanes_at_once>())[0];
}
inline float lane_sum(float_vec x) noexcept {
  auto const join = [](float_vec a, float_vec b) { return a + b; };
  return fold(x, join, std::make_index_sequence<lanes_at_once>())[0];
}

/// What the inner loops read: rows of one tile.
struct stream_rows {
  std::byte const* const* rows;    // [count], and asked_again more that need not be rows
  std::byte const* const* scales;  // [count], of codecs that keep them apart
  std::int32_t dim;                // elements of a row

  template <class Reader>
  cached_row row(std::int32_t t) const noexcept {
    if constexpr (Reader::scales_apart) return {rows[t], scales[t]};
    return {rows[t], nullptr};
  }
  stream_rows from(std::int32_t t) const noexcept { return {rows + t, scales + t, dim}; }
};

/// Groups in a line.
template <class Reader>
inline constexpr std::int32_t line_groups = larger(64 / Reader::bytes, 1);

/// Asks once more for the line of row t + asked_again in which the group lies that begins with element
/// `first`, if it is the first of so many groups as a line holds. Of a row of other data in between,
/// as q8_0's scales, a line may be passed by; of one that is decoded it asks for what is at hand.
template <class Reader>
[[gnu::always_inline]] inline void ask_again(stream_rows const& rows, std::int32_t t,
                                             std::int32_t first) noexcept {
  auto const group = first / Reader::elements;
  if (asked_again > 0 && group % line_groups<Reader> == 0)
    ask_for<1>(rows.rows[t + asked_again] + group * Reader::bytes);
}

/// Calls body(std::integral_constant<std::int32_t, pairs>) for 1 <= pairs <= stream_pairs.
template <std::int32_t Pairs = stream_pairs, class Body>
void with_pairs(std::int32_t pairs, Body&& body) noexcept {
  if constexpr (Pairs > 1)
    if (pairs < Pairs) return with_pairs<Pairs - 1>(pairs, body);
  body(std::integral_constant<std::int32_t, Pairs>());
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
