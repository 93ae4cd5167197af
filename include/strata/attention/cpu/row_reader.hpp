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

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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

/// A row of K or V in the cache, and its scales where the codec keeps them apart.
struct cached_row {
  std::byte const* data = nullptr;
  std::byte const* scales = nullptr;
};

/// Readers by codec: `elements` of a group, the `vectors` they make, their `bytes`; `at` and
/// `scale_at`, where the group lies that begins with an element, and its scale; `load`, which makes
/// it vectors; `multiply_add`, which multiplies one of them by what a query has in its place. A
/// codec without a reader is decoded to floats first.
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
  static constexpr bool scales_apart = false;
  static constexpr std::int32_t element(std::int32_t slot) noexcept { return slot; }
  static std::byte const* at(std::byte const* row, std::int32_t first) noexcept {
    return row + std::int64_t{first} * static_cast<std::int64_t>(sizeof(Element));
  }
  static std::byte const* scale_at(cached_row const&, std::int32_t) noexcept { return nullptr; }
  [[gnu::always_inline]] static float_vec multiply_add(float_vec sum, float_vec q,
                                                       float_vec k) noexcept {
    return sum + q * k;
  }
};

template <>
struct row_reader<f32_codec> : ordered_reader<float> {
  static void load(std::byte const* group, std::byte const*, float_vec* out) noexcept {
    std::memcpy(out, group, bytes);
  }
};

/// Two elements share 32 bits of a vector, and their order is given up.
template <class Element>
struct paired_reader : ordered_reader<Element> {
  static constexpr std::int32_t vectors = 2, elements = 2 * float_lanes::count;
  static constexpr std::int32_t bytes = 2 * elements;
  static constexpr std::int32_t element(std::int32_t slot) noexcept {
    return slot < float_lanes::count ? 2 * slot : 2 * (slot - float_lanes::count) + 1;
  }
};

// What STRATA_CPU_ISA names is what these conditions ask for: one name, one body.
#if defined(__AVX512F__)
[[gnu::always_inline]] inline float_vec widen_halves(std::byte const* from) noexcept {
  return _mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
}
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
[[gnu::always_inline]] inline float_vec widen_halves(std::byte const* from) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
}
#elif defined(__aarch64__)
[[gnu::always_inline]] inline float_vec widen_halves(std::byte const* from) noexcept {
  float16x4_t x;
  std::memcpy(&x, from, sizeof(x));
  return std::bit_cast<float_vec>(vcvt_f32_f16(x));
}
#else
#define STRATA_NO_HALVES
/// As to_float, of numbers in the upper half of 32 bits; anything may stand in the lower one. Their
/// sign, moved down, fills the upper bits of the exponent, too, until it is cleared from there.
[[gnu::always_inline]] inline float_vec widen_upper(float_lanes::mask x) noexcept {
  auto const bits = x >> 3 & static_cast<std::int32_t>(0x8FFFE000);
  auto const finite = std::bit_cast<float_lanes::mask>(std::bit_cast<float_vec>(bits) * 0x1p112f);
  auto const special = (bits & 0x0FFFFFFF) >= 0x7C00 << 13;  // infinity or NaN
  return std::bit_cast<float_vec>(finite | (special & 0x7F800000));
}
[[gnu::always_inline]] inline float_vec widen_halves(std::byte const* from) noexcept {
  typedef std::int16_t halves __attribute__((vector_size(vector_bytes / 2)));
  halves x;
  std::memcpy(&x, from, sizeof(x));
  return widen_upper(__builtin_convertvector(x, float_lanes::mask) << 16);
}
#endif

#if defined(STRATA_NO_HALVES)
#undef STRATA_NO_HALVES
/// In pairs, which need no shuffle: 1.4 to 1.5 times as fast as widening them in order (decode, AVX2
/// without F16C and SSE2).
template <>
struct row_reader<f16_codec> : paired_reader<float16> {
  static void load(std::byte const* group, std::byte const*, float_vec* out) noexcept {
    float_lanes::mask x;
    std::memcpy(&x, group, sizeof(x));
    out[0] = widen_upper(x << 16);
    out[1] = widen_upper(x);
  }
};
#else
template <>
struct row_reader<f16_codec> : ordered_reader<float16> {
  static void load(std::byte const* group, std::byte const*, float_vec* out) noexcept {
    *out = widen_halves(group);
  }
};
#endif

/// Of two elements in 32 bits the second is a float once the first is cleared away, and the first
/// once it is moved up.
template <>
struct row_reader<bf16_codec> : paired_reader<bfloat16> {
  static void load(std::byte const* group, std::byte const*, float_vec* out) noexcept {
    typedef std::uint32_t pairs __attribute__((vector_size(vector_bytes)));
    pairs x;
    std::memcpy(&x, group, sizeof(x));
    out[0] = std::bit_cast<float_vec>(x << 16);
    out[1] = std::bit_cast<float_vec>(x & 0xFFFF0000u);
  }
};

/// Readers of K, by the type of queries, that multiply the two as they are. Of queries a group
/// begins where its floats would, and takes half their memory.
template <class T, class Codec>
struct dot_reader {
  static constexpr bool exists = false;
};

#if defined(__AVX512F__) && defined(__AVX512BF16__)
/// Two products to a lane, each added to the sum as by an FMA: half the instructions, and none to
/// widen K. q . k takes 0.62 of the time (4 query heads on one KV head of 128, level 1; 8: 0.54), a
/// call 0.86 (decode of 2048 tokens by 32 query heads on 8, one thread). But numbers below 2^-126
/// count as zero: `takes` says for which queries that is far below all rounding.
template <>
struct dot_reader<bfloat16, bf16_codec> : ordered_reader<bfloat16> {
  static constexpr std::int32_t elements = 2 * float_lanes::count, bytes = 2 * elements;
  static void load(std::byte const* group, std::byte const*, float_vec* out) noexcept {
    std::memcpy(out, group, bytes);
  }
  [[gnu::always_inline]] static float_vec multiply_add(float_vec sum, float_vec q,
                                                       float_vec k) noexcept {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(q), reinterpret_cast<__m512bh>(k));
  }

  /// Whether all elements are zero or of a magnitude of 2^-126 to 2^80: what is lost of a product
  /// with K is then below 2^-46.
  static bool takes(bfloat16 const* q, std::int32_t n) noexcept {
    bool good = true;
    for (std::int32_t i = 0; i < n; ++i) {
      auto const magnitude = q[i].bits & 0x7FFFu;
      good &= (magnitude == 0) | ((magnitude >= 1u << 7) & (magnitude <= (127u + 80) << 7));
    }
    return good;
  }
};
#endif

/// int8 numbers as floats, in order. Left to itself g++ converts them one by one: 0.28 of the speed
/// with AVX2, 0.6 with SSE2 (decode, 4 query heads).
[[gnu::always_inline]] inline float_vec widen_bytes(std::byte const* from) noexcept {
#if defined(__AVX512F__)
  auto const numbers = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from));
  return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, numbers));
#elif defined(__AVX2__) && defined(__FMA__)
  auto const numbers = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(from));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(numbers));
#elif defined(__AVX__)
  typedef std::int8_t numbers __attribute__((vector_size(float_lanes::count)));
  numbers n;
  std::memcpy(&n, from, sizeof(n));
  return __builtin_convertvector(n, float_vec);
#else  // each number four times over, then moved down from the upper eight bits
  typedef std::int8_t bytes __attribute__((vector_size(16)));
  typedef std::int16_t halves __attribute__((vector_size(16)));
  std::int32_t four;
  std::memcpy(&four, from, sizeof(four));
  auto const n = std::bit_cast<bytes>(float_lanes::mask{four});
  auto const twice = std::bit_cast<halves>(
      __builtin_shufflevector(n, n, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  auto const words = __builtin_shufflevector(twice, twice, 0, 8, 1, 9, 2, 10, 3, 11);
  return __builtin_convertvector(std::bit_cast<float_lanes::mask>(words) >> 24, float_vec);
#endif
}

/// A float16, widened, in all lanes.
[[gnu::always_inline]] inline float_vec widen_all(std::byte const* scale) noexcept {
  float16 x;
  std::memcpy(&x, scale, sizeof(x));
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xFFFF, _mm256_set1_epi16(static_cast<std::int16_t>(x.bits)));
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<std::int16_t>(x.bits)));
#else
  return float_lanes::all(to_float(x));
#endif
}

/// A scale is widened where it is used, for two vectors: to gather and widen those of a tile
/// beforehand takes a fifth of the time.
template <bool Interleaved>
struct row_reader<int8_span_codec<Interleaved>> : ordered_reader<std::int8_t> {
  using codec = int8_span_codec<Interleaved>;
  static constexpr std::int32_t vectors = 2, elements = 2 * float_lanes::count;
  static constexpr std::int32_t bytes = elements;
  static constexpr bool scales_apart = !Interleaved;
  static_assert(codec::span % elements == 0, "strata: a group of elements has one scale");

  static std::byte const* at(std::byte const* row, std::int32_t first) noexcept {
    return codec::span_data(row, first / codec::span) + first % codec::span;
  }
  static std::byte const* scale_at(cached_row const& row, std::int32_t first) noexcept {
    constexpr std::int32_t size = sizeof(float16);
    auto const span = first / codec::span;
    return Interleaved ? codec::span_data(row.data, span) - size : row.scales + span * size;
  }
  static void load(std::byte const* group, std::byte const* scale, float_vec* out) noexcept {
    auto const factor = widen_all(scale);
    out[0] = widen_bytes(group) * factor;
    out[1] = widen_bytes(group + float_lanes::count) * factor;
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
  Reader::load(Reader::at(row.data, first), Reader::scale_at(row, first), out);
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
  Reader::load(copy, Reader::scale_at(row, first), out);
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
