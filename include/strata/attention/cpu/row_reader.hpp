// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How the rows of a cache become vectors of float where they lie, with no copy between.
//
// A reader turns a *group* of adjacent elements into `vectors` vectors, in the order that costs
// least; `element` says which element of the group stands in which slot. Who multiplies K by a
// query brings the query in that order; who sums V puts its sums back in the end. What 16 elements
// cost on Zen 4, in 512-bit operations: f32 none; bf16 one shift or mask, because two elements share
// 32 bits and their order is given up (widened in order it would be a shuffle and a shift, for which
// there are two ports of four: 0.9 of the speed at 8 query heads); f16 one conversion; int8 two
// conversions and a product; fp8 one conversion and five operations of half that width, most of them
// for NaN; int4 a conversion, a table look-up and half of a product.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/attention/cpu/byte_readers.hpp>
#include <strata/attention/cpu/element_readers.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// n elements, in whole groups.
template <class Reader>
constexpr std::int32_t slots_of(std::int32_t n) noexcept {
  return ceil_divide(n, Reader::elements) * Reader::elements;
}

/// Which element stands in a slot of a row of groups.
template <class Reader>
constexpr std::int32_t element_of(std::int32_t slot) noexcept {
  auto const in_group = slot % Reader::elements;
  return slot - in_group + Reader::element(in_group);
}

/// How many elements of a row of n are in whole groups.
template <class Reader>
constexpr std::int32_t whole_of(std::int32_t n) noexcept {
  if constexpr (requires { Reader::whole(n); }) return Reader::whole(n);
  return n / Reader::elements * Reader::elements;
}

/// The group of a row that begins with element `first`.
template <class Reader>
[[gnu::always_inline]] inline void load_group(cached_row const& row, std::int32_t first,
                                              float_vec* out) noexcept {
  if constexpr (requires { Reader::load_group(row, first, out); })
    Reader::load_group(row, first, out);
  else
    Reader::load(Reader::at(row.data, first), Reader::scale_at(row, first), out);
#pragma GCC unroll 4
  for (std::int32_t i = 0; i < Reader::vectors; ++i) out[i] = in_register(out[i]);
}

/// The same where the row has `rest` elements from `first` on, maybe less than a group: zeros stand
/// behind them, where nothing is read.
template <class Reader>
void load_end(cached_row const& row, std::int32_t first, std::int32_t rest,
              float_vec* out) noexcept {
  if constexpr (requires { Reader::load_end(row, first, rest, out); }) {
    Reader::load_end(row, first, rest, out);
  } else {
    auto const count = smaller(rest, Reader::elements);
    alignas(64) std::byte copy[Reader::bytes] = {};
    std::memcpy(copy, Reader::at(row.data, first),
                static_cast<std::size_t>(count * (Reader::bytes / Reader::elements)));
    Reader::load(copy, Reader::scale_at(row, first), out);
  }
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
