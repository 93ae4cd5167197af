// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The two inner loops of streamed attention: dot products of a few keys with a few queries, and
// sums of weighted values. Each vector of the cache is made once and used for all the queries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
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

/// Keys that are scored together by so many queries. Where a key is one vector, 16 registers hold
/// 12 sums, 3 queries or keys, and one of the other: 3 x 4 or 4 x 3. With 8 sums two FMAs start in
/// each cycle only if none is ever late. AVX2, f16, 8192 tokens: decode takes 0.9 of the time with
/// 3 KV heads of 64 by 3 queries, 0.93 with 8 of 128 by 4 or 8; scores alone 0.91, and 0.77 while
/// another thread shares the core.
constexpr std::int32_t keys_together(std::int32_t pairs, std::int32_t vectors) noexcept {
  return stream_sums == 8 && pairs >= 3 && vectors == 1 ? 12 / pairs
                                                        : larger(stream_sums / pairs, 1);
}

/// Groups of V that are summed together by so many queries: as many as leave a register for each
/// weight, which is read once for all of them, and for one group.
constexpr std::int32_t groups_together(std::int32_t pairs, std::int32_t vectors) noexcept {
  auto const mask = vectors > 1 ? 1 : 0;  // what takes a group apart
  auto groups = 8 / vectors;
  while (groups > 1 && pairs * (groups * vectors + 1) + vectors + mask > vector_registers)
    groups /= 2;
  return groups;
}

// Sums live in registers only where the body of the loop is part of the function.
#define STRATA_INLINE_LAMBDA __attribute__((always_inline))
inline constexpr std::size_t lanes_at_once = static_cast<std::size_t>(float_lanes::count);
inline constexpr std::int32_t lane_count = float_lanes::count;

template <std::size_t... Lane>
struct lane_sums {
  static constexpr std::size_t n = sizeof...(Lane), blocks = n / 4;

  /// Of x[0] .. x[n - 1]; the result's lane j is the sum of all lanes of x[j]. Within blocks of 4
  /// lanes first, where a shuffle costs least, then across them.
  static float_vec of(float_vec const* x) noexcept {
    float_vec sum[blocks];
    for (std::size_t i = 0; i < blocks; ++i, x += 4)
      sum[i] = twos(ones(x[0], x[1]), ones(x[2], x[3]));
    if constexpr (blocks > 1)
      for (auto count = blocks; count > 1; count /= 2)
        for (std::size_t i = 0; i < count / 2; ++i) sum[i] = across(sum[2 * i], sum[2 * i + 1]);
    return sum[0];
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
  std::byte const* const* rows;    // [count]
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

/// sums[pair][slot] = sums[pair][slot] * kept[pair] + the sum of weights[pair][key] * value[slot]
/// over `count` keys, for a column of `Groups` groups that begins at element `first`.
template <std::int32_t Pairs, std::int32_t Groups, class Reader>
void value_block(stream_rows const& values, stream_asks& asks, std::int32_t count,
                 std::int32_t first, float const* weights, float const* kept, float* sums,
                 std::int64_t stride) noexcept {
  constexpr auto vecs = Groups * Reader::vectors;
  constexpr auto per_line = line_groups<Reader>;
  constexpr auto pairs = static_cast<std::size_t>(Pairs);
  float_vec sum[pairs][static_cast<std::size_t>(vecs)];
#pragma GCC unroll 8
  for (std::int32_t p = 0; p < Pairs; ++p)
#pragma GCC unroll 8
    for (std::int32_t j = 0; j < vecs; ++j)
      sum[p][j] = float_lanes::load(sums + p * stride + first + j * lane_count) * kept[p];
  bool const whole = first + Groups * Reader::elements <= whole_of<Reader>(values.dim);
  auto next = asks;
  for (std::int32_t t = 0; t < count; ++t) {
    if (t * Groups % per_line == 0)
      for (std::int32_t g = 0; g < Groups; g += per_line) next.line();
    float_vec weight[pairs];
#pragma GCC unroll 8
    for (std::int32_t p = 0; p < Pairs; ++p)
      weight[p] = in_register(float_lanes::all(weights[p * stream_keys + t]));
#pragma GCC unroll 8
    for (std::int32_t g = 0; g < Groups; ++g) {
      float_vec x[Reader::vectors];
      if (Groups > 1 || whole)
        load_group<Reader>(values.row<Reader>(t), first + g * Reader::elements, x);
      else  // only with one group
        load_end<Reader>(values.row<Reader>(t), first, values.dim - first, x);
#pragma GCC unroll 8
      for (std::int32_t p = 0; p < Pairs; ++p)
#pragma GCC unroll 4
        for (std::int32_t v = 0; v < Reader::vectors; ++v)
          sum[p][g * Reader::vectors + v] += weight[p] * x[v];
    }
  }
#pragma GCC unroll 8
  for (std::int32_t p = 0; p < Pairs; ++p)
#pragma GCC unroll 8
    for (std::int32_t j = 0; j < vecs; ++j)
      float_lanes::store(sums + p * stride + first + j * lane_count, sum[p][j]);
  asks = next;
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

template <std::int32_t Pairs, class Reader>
void weigh_pairs(stream_rows const& values, stream_asks& next, std::int32_t count,
                 float const* weights, float const* kept, float* sums,
                 std::int64_t stride) noexcept {
  constexpr auto groups = groups_together(Pairs, Reader::vectors);
  next.begin_pass(stream_keys * ceil_divide(values.dim, Reader::elements) / line_groups<Reader>);
  std::int32_t i = 0;
  auto const whole = whole_of<Reader>(values.dim);
  for (; whole - i >= groups * Reader::elements; i += groups * Reader::elements)
    value_block<Pairs, groups, Reader>(values, next, count, i, weights, kept, sums, stride);
  for (; i < values.dim; i += Reader::elements)
    value_block<Pairs, 1, Reader>(values, next, count, i, weights, kept, sums, stride);
}

/// One pair, where an infinity or a NaN among the values meets a weight of zero, which keeps it out.
template <class Reader>
void add_nonzero(stream_rows const& values, std::int32_t count, float const* weights, float kept,
                 float* sums) noexcept {
  for (std::int32_t i = 0; i < values.dim; i += Reader::elements) {
    float_vec sum[Reader::vectors];
    for (std::int32_t j = 0; j < Reader::vectors; ++j)
      sum[j] = kept == 0 ? float_vec{} : float_lanes::load(sums + i + j * lane_count) * kept;
    for (std::int32_t t = 0; t < count; ++t) {
      if (weights[t] == 0) continue;
      float_vec x[Reader::vectors];
      load_end<Reader>(values.row<Reader>(t), i, values.dim - i, x);
      for (std::int32_t j = 0; j < Reader::vectors; ++j) sum[j] += weights[t] * x[j];
    }
    for (std::int32_t j = 0; j < Reader::vectors; ++j)
      float_lanes::store(sums + i + j * lane_count, sum[j]);
  }
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
