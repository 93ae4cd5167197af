// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a reader of rows is (row_reader.hpp says what for), and those of f32, f16 and bf16.
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
/// it vectors, of numbers that are the codec's once multiplied by `unit`, a power of two;
/// `multiply_add`, which multiplies a vector by what a query has in its place. A reader whose groups
/// are no bytes of their own has `load_group`, `load_end` and `whole` instead (row_reader.hpp has
/// their defaults). A head's scale is left to whoever reads. A codec without a reader is decoded to
/// floats first.
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
  static constexpr float unit = 1;
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

/// As many float16 as a vector has floats.
typedef std::int16_t half_lanes __attribute__((vector_size(vector_bytes / 2)));

// What STRATA_CPU_ISA names is what these conditions ask for: one name, one body.
#if defined(__AVX512F__)
[[gnu::always_inline]] inline float_vec widen_halves(half_lanes x) noexcept {
  return _mm512_maskz_cvtph_ps(0xFFFF, reinterpret_cast<__m256i>(x));
}
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
[[gnu::always_inline]] inline float_vec widen_halves(half_lanes x) noexcept {
  return _mm256_cvtph_ps(reinterpret_cast<__m128i>(x));
}
#elif defined(__aarch64__)
[[gnu::always_inline]] inline float_vec widen_halves(half_lanes x) noexcept {
  return std::bit_cast<float_vec>(vcvt_f32_f16(std::bit_cast<float16x4_t>(x)));
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
#endif

#if defined(STRATA_NO_HALVES)
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
    half_lanes x;
    std::memcpy(&x, group, sizeof(x));
    *out = widen_halves(x);
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

// Processors with AVX512FP16 (Emerald Rapids) start one such product in two cycles, and in these four
// multiply-adds of float, which are twice the work: with dots a call takes 1.03 to 1.3 times as long.
#if defined(__AVX512F__) && defined(__AVX512BF16__) && !defined(__AVX512FP16__)
/// Two products to a lane, each added to the sum as by an FMA: half the instructions, and none to
/// widen K. On a Zen 4 q . k takes 0.62 of the time (4 query heads on one KV head of 128, level 1;
/// 8: 0.54), a call 0.86 (decode of 2048 tokens by 32 query heads on 8, one thread). But numbers
/// below 2^-126 count as zero: `takes` says for which queries that is far below all rounding.
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

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
