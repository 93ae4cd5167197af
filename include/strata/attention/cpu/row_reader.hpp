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
// conversions and a product.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#include <strata/attention/cpu/lanes.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

using float_lanes = lanes<float>;
using float_vec = float_lanes::vec;

/// A row of K or V in the cache, and its scales, widened; null where the codec has none.
struct cached_row {
  std::byte const* data = nullptr;
  float const* scales = nullptr;
};

/// Readers by codec: `elements` of a group, the `vectors` they make, their `bytes`; `at`, where the
/// group lies that begins with an element; `load`, which makes it vectors. span: elements to a
/// scale, 0 where there is none. A codec without a reader is decoded to floats first.
template <class Codec>
struct row_reader {
  static constexpr bool exists = false;
};

/// Elements in their order, a vector to a group.
template <class Element>
struct ordered_reader {
  static constexpr bool exists = true;
  static constexpr std::int32_t vectors = 1, elements = float_lanes::count;
  static constexpr std::int32_t bytes = elements * static_cast<std::int32_t>(sizeof(Element));
  static constexpr std::int32_t span = 0;
  static constexpr std::int32_t element(std::int32_t slot) noexcept { return slot; }
  static std::byte const* at(std::byte const* row, std::int32_t first) noexcept {
    return row + std::int64_t{first} * static_cast<std::int64_t>(sizeof(Element));
  }
};

template <>
struct row_reader<f32_codec> : ordered_reader<float> {
  static void load(std::byte const* group, float, float_vec* out) noexcept {
    std::memcpy(out, group, bytes);
  }
};

template <>
struct row_reader<f16_codec> : ordered_reader<float16> {
  static void load(std::byte const* group, float, float_vec* out) noexcept {
#if defined(__AVX512F__)
    *out =
        _mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(group)));
#elif defined(__F16C__)
    *out = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(group)));
#else
    f16_codec::decode(group, nullptr, elements, reinterpret_cast<float*>(out));
#endif
  }
};

/// Of two elements in 32 bits the second is a float once the first is cleared away, and the first
/// once it is moved up.
template <>
struct row_reader<bf16_codec> : ordered_reader<bfloat16> {
  static constexpr std::int32_t vectors = 2, elements = 2 * float_lanes::count;
  static constexpr std::int32_t bytes = 2 * elements;
  static constexpr std::int32_t element(std::int32_t slot) noexcept {
    return slot < float_lanes::count ? 2 * slot : 2 * (slot - float_lanes::count) + 1;
  }
  static void load(std::byte const* group, float, float_vec* out) noexcept {
    typedef std::uint32_t pairs __attribute__((vector_size(vector_bytes)));
    pairs x;
    std::memcpy(&x, group, sizeof(x));
    out[0] = std::bit_cast<float_vec>(x << 16);
    out[1] = std::bit_cast<float_vec>(x & 0xFFFF0000u);
  }
};

template <bool Interleaved>
struct row_reader<int8_span_codec<Interleaved>> : ordered_reader<std::int8_t> {
  using codec = int8_span_codec<Interleaved>;
  static constexpr std::int32_t span = codec::span;
  static_assert(span % float_lanes::count == 0, "strata: a vector of elements has one scale");
  static std::byte const* at(std::byte const* row, std::int32_t first) noexcept {
    return codec::span_data(row, first / span) + first % span;
  }
  static void load(std::byte const* group, float scale, float_vec* out) noexcept {
#if defined(__AVX512F__)
    auto const numbers = _mm_loadu_si128(reinterpret_cast<__m128i const*>(group));
    float_vec const x =
        _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, numbers));
#else
    typedef std::int8_t numbers __attribute__((vector_size(float_lanes::count)));
    numbers n;
    std::memcpy(&n, group, sizeof(n));
    float_vec const x = __builtin_convertvector(n, float_vec);
#endif
    *out = x * scale;
  }
};

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

/// The group of a row that begins with element `first`.
template <class Reader>
[[gnu::always_inline]] inline void load_group(cached_row const& row, std::int32_t first,
                                              float_vec* out) noexcept {
  float scale = 0;
  if constexpr (Reader::span > 0) scale = row.scales[first / Reader::span];
  Reader::load(Reader::at(row.data, first), scale, out);
#pragma GCC unroll 4
  for (std::int32_t i = 0; i < Reader::vectors; ++i) out[i] = in_register(out[i]);
}

/// The same of `count` elements, less than a group: zeros stand behind them, where nothing is read.
template <class Reader>
void load_end(cached_row const& row, std::int32_t first, std::int32_t count,
              float_vec* out) noexcept {
  alignas(64) std::byte copy[Reader::bytes] = {};
  std::memcpy(copy, Reader::at(row.data, first),
              static_cast<std::size_t>(count * (Reader::bytes / Reader::elements)));
  float scale = 0;
  if constexpr (Reader::span > 0) scale = row.scales[first / Reader::span];
  Reader::load(copy, scale, out);
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
