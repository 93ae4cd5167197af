// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sums of weighted values: the second of the two inner loops of streamed attention. Each vector of V
// is made once and used for all the queries.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Groups of V that are summed together by so many queries: as many as leave a register for each
/// weight, which is read once for all of them, and for one group.
constexpr std::int32_t groups_together(std::int32_t pairs, std::int32_t vectors) noexcept {
  auto const mask = vectors > 1 ? 1 : 0;  // what takes a group apart
  auto groups = 8 / vectors;
  while (groups > 1 && pairs * (groups * vectors + 1) + vectors + mask > vector_registers)
    groups /= 2;
  return groups;
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
#pragma GCC unroll 8
    for (std::int32_t g = 0; g < Groups; ++g)
      ask_again<Reader>(values, t, first + g * Reader::elements);
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

template <std::int32_t Pairs, class Reader>
void weigh_pairs(stream_rows const& values, stream_asks& next, std::int32_t count,
                 float const* weights, float const* kept, float* sums,
                 std::int64_t stride) noexcept {
  constexpr auto groups = groups_together(Pairs, Reader::vectors);
  constexpr auto per_line = line_groups<Reader>;
  next.begin_pass(ceil_divide(count, per_line) * ceil_divide(values.dim, Reader::elements));
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

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
