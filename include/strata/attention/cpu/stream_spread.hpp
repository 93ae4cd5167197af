// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Dot products of keys with more than eight queries where 512-bit vectors cost the most: the queries
// side by side in a vector.
//
// With one query to a vector all its 16 lanes are parts of one score, and to add up 16 such vectors
// takes 45 instructions on the two ports that multiply-adds need, too: with 8 queries 22 for a key of
// 128 elements, beside 64 multiply-adds and 16 that make floats of f16. Side by side, four lanes are
// parts of one score, and that takes 4. Then each four elements of K are repeated through a vector;
// loads do so, which have ports of their own, from a copy of K in float that all queries share.
//
// Emerald Rapids, 8 KV heads of 128, one thread, K and V from memory: 4 rows of 4 query heads take 0.83
// (f16) and 0.88 of the time (bf16), 3 rows 0.91 and 0.94. With 8 queries it would take 1.05 times as
// long, if only 0.91 and 0.96 from level 2, and with 4 1.09 times: the copy alone is 5 ns a key.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Where queries are spread. A Zen 4, which has no AVX512FP16, starts one 512-bit multiply-add in a
/// cycle and shuffles beside it: there it was not tried.
inline constexpr bool can_spread = has_half_vectors;

/// Keys that are copied together.
inline constexpr std::int32_t spread_keys = 16;
/// Lanes of a query: as many elements of K are repeated. With 2, 8 queries share a vector, but then
/// each multiply-add waits for a load of its own, of which two start in a cycle, too: 1.25 times as
/// long (8 queries, f16).
inline constexpr std::int32_t spread_width = 4;
inline constexpr std::int32_t spread_queries = lane_count / spread_width;  // of a vector

/// Whether so many queries on a KV head are spread.
constexpr bool spreads(std::int32_t pairs) noexcept { return can_spread && pairs > 8; }

/// The spread_width floats from `from` on, over and over.
[[gnu::always_inline]] inline float_vec repeated(float const* from) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(from));
#else
  float_vec x;
  for (std::int32_t i = 0; i < lane_count; ++i) x[i] = from[i % spread_width];
  return x;
#endif
}

/// Vectors that so many queries, up to stream_pairs, take.
constexpr std::int32_t spread_vectors(std::int32_t pairs) noexcept {
  return ceil_divide(pairs, spread_queries);
}

/// Queries of up to stream_pairs pairs to `to`, [slots / spread_width][vectors][lane_count]:
/// load(p, row) makes that of pair p floats in row [slots]. Lanes of no query are zeros: what stands
/// there is multiplied, too.
template <class Load>
void spread_pairs(std::int32_t pairs, std::int32_t slots, float* row, float* to,
                  Load const& load) noexcept {
  auto const vectors = spread_vectors(pairs);
  for (std::int32_t p = 0; p < vectors * spread_queries; ++p) {
    if (p < pairs)
      load(p, row);
    else
      std::memset(row, 0, static_cast<std::size_t>(slots) * sizeof(float));
    auto* out = to + p / spread_queries * lane_count + p % spread_queries * spread_width;
    for (std::int32_t i = 0; i < slots; i += spread_width, out += vectors * lane_count)
      std::memcpy(out, row + i, spread_width * sizeof(float));
  }
}

/// K of `Keys` keys in float: [slots / lane_count][spread_keys][lane_count], so that what is read
/// together lies at distances that are known.
template <std::int32_t Keys, class Reader>
[[gnu::always_inline]] inline void copy_keys(stream_rows const& keys, float* to) noexcept {
  auto const whole = whole_of<Reader>(keys.dim);
  cached_row row[static_cast<std::size_t>(Keys)];
#pragma GCC unroll 4
  for (std::int32_t t = 0; t < Keys; ++t) row[t] = keys.row<Reader>(t);
  auto const store = [&](std::int32_t i, std::int32_t t,
                         float_vec const* x) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (std::int32_t v = 0; v < Reader::vectors; ++v)
      float_lanes::store(to + (i + v * lane_count) * spread_keys + t * lane_count, x[v]);
  };
  for (std::int32_t i = 0; i < whole; i += Reader::elements)
#pragma GCC unroll 4
    for (std::int32_t t = 0; t < Keys; ++t) {
      float_vec x[Reader::vectors];
      load_group<Reader>(row[t], i, x);
      store(i, t, x);
    }
  for (auto i = whole; i < keys.dim; i += Reader::elements)
    for (std::int32_t t = 0; t < Keys; ++t) {
      float_vec x[Reader::vectors];
      load_end<Reader>(row[t], i, keys.dim - i, x);
      store(i, t, x);
    }
}

/// The same of up to spread_keys, and zeros for those that are missing.
template <class Reader>
void copy_block(stream_rows const& keys, std::int32_t count, float* to) noexcept {
  std::int32_t t = 0;
  for (; t + 4 <= count; t += 4) copy_keys<4, Reader>(keys.from(t), to + t * lane_count);
  for (; t < count; ++t) copy_keys<1, Reader>(keys.from(t), to + t * lane_count);
  for (; t < spread_keys; ++t)
    for (std::int32_t i = 0; i < slots_of<Reader>(keys.dim); i += lane_count)
      float_lanes::store(to + i * spread_keys + t * lane_count, float_vec{});
}

/// Keys whose sums are in registers together: chains enough for 2 ports x 4 cycles; 4, 8 or 16.
constexpr std::int32_t spread_together(std::int32_t pairs) noexcept {
  auto const fit = static_cast<std::uint32_t>(stream_sums / spread_vectors(pairs));
  return larger(static_cast<std::int32_t>(std::bit_floor(fit)), 4);
}
/// How many lines of K those have for every step of spread_width slots.
template <std::int32_t Pairs, class Reader>
inline constexpr std::int32_t spread_lines =
    ceil_divide(spread_together(Pairs) * spread_width * Reader::bytes, 64 * Reader::elements);

/// scores[pair][key] = q[pair] . key, for spread_together keys of copy_keys and queries of
/// spread_pairs.
template <std::int32_t Pairs, class Reader>
void score_spread(float const* keys, std::int32_t slots, stream_asks& asks, float const* q,
                  float* scores) noexcept {
  constexpr auto vectors = static_cast<std::size_t>(spread_vectors(Pairs));
  constexpr auto count = static_cast<std::size_t>(spread_together(Pairs));
  constexpr auto fours = count / 4;
  float_vec sum[vectors][count];
#pragma GCC unroll 2
  for (std::size_t v = 0; v < vectors; ++v)
#pragma GCC unroll 16
    for (std::size_t t = 0; t < count; ++t) sum[v][t] = float_vec{};
  auto next = asks;
  for (std::int32_t i = 0; i < slots; i += lane_count, keys += spread_keys * lane_count)
    for (std::int32_t s = 0; s < lane_count; s += spread_width) {
#pragma GCC unroll 8
      for (std::int32_t l = 0; l < spread_lines<Pairs, Reader>; ++l) next.line();
      float_vec x[vectors];
#pragma GCC unroll 2
      for (std::size_t v = 0; v < vectors; ++v, q += lane_count)
        x[v] = in_register(float_lanes::load(q));
#pragma GCC unroll 16
      for (std::size_t t = 0; t < count; ++t) {
        auto const k = in_register(repeated(keys + static_cast<std::int32_t>(t) * lane_count + s));
#pragma GCC unroll 2
        for (std::size_t v = 0; v < vectors; ++v)
          sum[v][t] = float_lanes::multiply_add(x[v], k, sum[v][t]);
      }
    }
  asks = next;
  // Through memory: to move a few floats costs no port that multiply-adds need.
  float total[vectors][fours][lanes_at_once];
#pragma GCC unroll 2
  for (std::size_t v = 0; v < vectors; ++v)
#pragma GCC unroll 4
    for (std::size_t f = 0; f < fours; ++f)
      float_lanes::store(total[v][f],
                         sum_fours(sum[v] + 4 * f, std::make_index_sequence<lanes_at_once>()));
  asm("" : "+m"(total));
#pragma GCC unroll 8
  for (std::int32_t p = 0; p < Pairs; ++p)
#pragma GCC unroll 4
    for (std::size_t f = 0; f < fours; ++f)
      std::memcpy(scores + p * stream_keys + static_cast<std::int32_t>(f) * 4,
                  total[static_cast<std::size_t>(p / spread_queries)][f] +
                      p % spread_queries * spread_width,
                  4 * sizeof(float));
}

/// All keys of a tile against all queries of its head, spread as stream_queries has them.
/// copy: spread_keys * slots floats. Scores behind the last key may be anything.
template <class Reader>
void score_spread_tile(stream_rows const& keys, stream_asks& asks, std::int32_t count,
                       std::int32_t pairs, float const* q, std::int64_t q_stride, float* copy,
                       float* scores) noexcept {
  auto const slots = slots_of<Reader>(keys.dim);
  auto next = asks;
  std::int32_t calls = 0;  // of `line`, for a copy
  for (std::int32_t p = 0; p < pairs; p += stream_pairs)
    with_pairs(smaller(pairs - p, stream_pairs), [&](auto n) {
      constexpr auto blocks = spread_keys / spread_together(n());
      calls += blocks * slots / spread_width * spread_lines<n(), Reader>;
    });
  next.begin_pass(ceil_divide(count, spread_keys) * calls);
  for (std::int32_t t = 0; t < count; t += spread_keys) {
    auto const some = smaller(count - t, spread_keys);
    copy_block<Reader>(keys.from(t), some, copy);
    for (std::int32_t p = 0; p < pairs; p += stream_pairs)
      with_pairs(smaller(pairs - p, stream_pairs), [&](auto n) {
        constexpr auto together = spread_together(n());
        for (std::int32_t i = 0; i < some; i += together)
          score_spread<n(), Reader>(copy + i * lane_count, slots, next, q + p * q_stride,
                                    scores + p * stream_keys + t + i);
      });
  }
  asks = next;
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
