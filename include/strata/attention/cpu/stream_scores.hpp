// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Dot products of a few keys with a few queries: the first of the two inner loops of streamed
// attention. Each vector of K is made once and used for all the queries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

// Sums live in registers only where the body of the loop is part of the function.
#define STRATA_INLINE_LAMBDA __attribute__((always_inline))

/// Keys that are scored together by so many queries. Where a key is one vector, 16 registers hold
/// 12 sums, 3 queries or keys, and one of the other: 3 x 4 or 4 x 3. With 8 sums two FMAs start in
/// each cycle only if none is ever late. AVX2, f16, 8192 tokens: decode takes 0.9 of the time with
/// 3 KV heads of 64 by 3 queries, 0.93 with 8 of 128 by 4 or 8; scores alone 0.91, and 0.77 while
/// another thread shares the core.
constexpr std::int32_t keys_together(std::int32_t pairs, std::int32_t vectors) noexcept {
  return stream_sums == 8 && pairs >= 3 && vectors == 1 ? 12 / pairs
                                                        : larger(stream_sums / pairs, 1);
}

/// Asks of some keys that are scored together, for at least as many lines as they have: so many in
/// every so many steps from group to group.
template <std::int32_t Keys, class Reader>
struct score_pace {
  static constexpr auto lines = ceil_divide(Keys, line_groups<Reader>);
  static constexpr auto steps = larger(line_groups<Reader> / Keys, 1);
  static std::int32_t calls(std::int32_t dim) noexcept {
    return ceil_divide(ceil_divide(dim, Reader::elements), steps) * lines;
  }
};

/// scores[pair][key] = q[pair] . key, for `Keys` keys.
template <std::int32_t Keys, std::int32_t Pairs, class Reader>
[[gnu::always_inline]] inline void score_block(stream_rows const& keys, stream_asks& next,
                                               float const* q, std::int64_t q_stride,
                                               float* scores) noexcept {
  constexpr auto sums =
      static_cast<std::size_t>(ceil_divide(Keys * Pairs, lane_count) * lane_count);
  using pace = score_pace<Keys, Reader>;
  // What is in registers while the other comes one by one: a few keys or a few queries.
  constexpr bool keys_stay = Pairs * Reader::vectors > 4 || (Keys > 1 && Keys < Pairs);
  constexpr auto key_count = static_cast<std::size_t>(Keys);
  constexpr auto pair_count = static_cast<std::size_t>(Pairs);
  constexpr auto vecs = static_cast<std::size_t>(Reader::vectors);
  float_vec sum[sums];
#pragma GCC unroll 16
  for (std::size_t i = 0; i < sums; ++i) sum[i] = float_vec{};  // `= {}` is a rep stos: 0.93, AVX2
  auto const add = [&](std::int32_t i, auto load) STRATA_INLINE_LAMBDA {
    if (i / Reader::elements % pace::steps == 0)
#pragma GCC unroll 16
      for (std::int32_t l = 0; l < pace::lines; ++l) next.line();
#pragma GCC unroll 16
    for (std::int32_t t = 0; t < Keys; ++t) ask_again<Reader>(keys, t, i);
    if constexpr (keys_stay) {
      float_vec k[key_count][vecs];
#pragma GCC unroll 16
      for (std::int32_t t = 0; t < Keys; ++t) load(keys.row<Reader>(t), k[t]);
#pragma GCC unroll 4
      for (std::int32_t v = 0; v < Reader::vectors; ++v)
#pragma GCC unroll 8
        for (std::int32_t p = 0; p < Pairs; ++p) {
          auto const x = in_register(float_lanes::load(q + p * q_stride + i + v * lane_count));
#pragma GCC unroll 16
          for (std::int32_t t = 0; t < Keys; ++t)
            sum[p * Keys + t] = Reader::multiply_add(sum[p * Keys + t], x, k[t][v]);
        }
    } else {
      float_vec x[pair_count][vecs];
#pragma GCC unroll 4
      for (std::int32_t p = 0; p < Pairs; ++p)
#pragma GCC unroll 4
        for (std::int32_t v = 0; v < Reader::vectors; ++v)
          x[p][v] = in_register(float_lanes::load(q + p * q_stride + i + v * lane_count));
#pragma GCC unroll 16
      for (std::int32_t t = 0; t < Keys; ++t) {
        float_vec k[Reader::vectors];
        load(keys.row<Reader>(t), k);
#pragma GCC unroll 4
        for (std::int32_t p = 0; p < Pairs; ++p)
#pragma GCC unroll 4
          for (std::int32_t v = 0; v < Reader::vectors; ++v)
            sum[p * Keys + t] = Reader::multiply_add(sum[p * Keys + t], x[p][v], k[v]);
      }
    }
  };
  auto const whole = whole_of<Reader>(keys.dim);
  for (std::int32_t i = 0; i < whole; i += Reader::elements)
    add(i, [&](cached_row const& row, float_vec* out)
               STRATA_INLINE_LAMBDA { load_group<Reader>(row, i, out); });
  for (auto i = whole; i < keys.dim; i += Reader::elements)
    add(i, [&](cached_row const& row, float_vec* out)
               STRATA_INLINE_LAMBDA { load_end<Reader>(row, i, keys.dim - i, out); });
  float total[sums];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < sums; i += lanes_at_once)
    float_lanes::store(total + i, sum_lanes(sum + i, std::make_index_sequence<lanes_at_once>()));
  asm("" : "+m"(total));  // else g++ cuts it up by shuffles, a dozen for 8 pairs
#pragma GCC unroll 8
  for (std::int32_t p = 0; p < Pairs; ++p)
    std::memcpy(scores + p * stream_keys, total + p * Keys, Keys * sizeof(float));
}

#undef STRATA_INLINE_LAMBDA

/// All keys of a tile against `Pairs` queries.
template <std::int32_t Pairs, class Reader>
void score_pairs(stream_rows const& keys, stream_asks& asks, std::int32_t count, float const* q,
                 std::int64_t q_stride, float* scores) noexcept {
  constexpr auto together = keys_together(Pairs, Reader::vectors);
  auto next = asks;
  next.begin_pass(count / together * score_pace<together, Reader>::calls(keys.dim) +
                  count % together * score_pace<1, Reader>::calls(keys.dim));
  std::int32_t t = 0;
  for (; t + together <= count; t += together)
    score_block<together, Pairs, Reader>(keys.from(t), next, q, q_stride, scores + t);
  for (; t < count; ++t) score_block<1, Pairs, Reader>(keys.from(t), next, q, q_stride, scores + t);
  asks = next;
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
