// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Readers of rows whose elements have 8 or 4 bits: int8, fp8 and int4.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#endif

#include <strata/attention/cpu/element_readers.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

#if !defined(__AVX__)
/// Four bytes, each four times over in an integer of its own.
[[gnu::always_inline]] inline float_lanes::mask repeat_bytes(std::byte const* from) noexcept {
  typedef std::int8_t bytes __attribute__((vector_size(16)));
  typedef std::int16_t halves __attribute__((vector_size(16)));
  std::int32_t four;
  std::memcpy(&four, from, sizeof(four));
  auto const n = std::bit_cast<bytes>(float_lanes::mask{four});
  auto const twice = std::bit_cast<halves>(
      __builtin_shufflevector(n, n, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  auto const words = __builtin_shufflevector(twice, twice, 0, 8, 1, 9, 2, 10, 3, 11);
  return std::bit_cast<float_lanes::mask>(words);
}
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
#else
  return __builtin_convertvector(repeat_bytes(from) >> 24, float_vec);
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

#if defined(STRATA_NO_HALVES)
#undef STRATA_NO_HALVES
/// Four elements share 32 bits, and their order is given up. Moved to where a float has the last bits
/// of its exponent and the first of its fraction, their bits are the number times 2^-120, and
/// subnormals come along.
template <>
struct row_reader<fp8_codec> : ordered_reader<float8_e4m3> {
  static constexpr std::int32_t vectors = 4, elements = 4 * float_lanes::count;
  static constexpr std::int32_t bytes = elements;
  static constexpr float unit = 0x1p8f;
  static constexpr std::int32_t element(std::int32_t slot) noexcept {
    return slot % float_lanes::count * 4 + slot / float_lanes::count;
  }
  static void load(std::byte const* group, std::byte const*, float_vec* out) noexcept {
    float_lanes::mask x;
    std::memcpy(&x, group, sizeof(x));
    out[0] = widen(x << 24);
    out[1] = widen(x << 16);
    out[2] = widen(x << 8);
    out[3] = widen(x);
  }

 private:
  /// Of the upper eight bits.
  [[gnu::always_inline]] static float_vec widen(float_lanes::mask x) noexcept {
    auto const bits = x >> 4 & static_cast<std::int32_t>(0x87F00000);
    auto const finite = std::bit_cast<float_lanes::mask>(std::bit_cast<float_vec>(bits) * 0x1p112f);
    auto const nan = (bits & 0x07F00000) == 0x07F00000;
    return std::bit_cast<float_vec>(finite | nan);
  }
};
#else
/// Two elements share 16 bits, and their order is given up. Moved to where a float16 has the last
/// bits of its exponent and the first of its fraction, their bits are the number times 2^-8, and
/// subnormals come along.
template <>
struct row_reader<fp8_codec> : ordered_reader<float8_e4m3> {
  static constexpr std::int32_t vectors = 2, elements = 2 * float_lanes::count;
  static constexpr std::int32_t bytes = elements;
  static constexpr float unit = 0x1p8f;
  static constexpr std::int32_t element(std::int32_t slot) noexcept {
    return slot < float_lanes::count ? 2 * slot : 2 * (slot - float_lanes::count) + 1;
  }
  static void load(std::byte const* group, std::byte const*, float_vec* out) noexcept {
    half_lanes x;
    std::memcpy(&x, group, sizeof(x));
    out[0] = widen(x << 8);
    out[1] = widen(x);
  }

 private:
  /// Of the upper eight bits.
  [[gnu::always_inline]] static float_vec widen(half_lanes x) noexcept {
    auto const nan = (x | static_cast<std::int16_t>(0x80FF)) == static_cast<std::int16_t>(-1);
    return widen_halves((x >> 1 & static_cast<std::int16_t>(0xBF80)) | nan);
  }
};
#endif

/// Bytes as integers, in order: each in the lower eight bits, and anything above.
[[gnu::always_inline]] inline float_lanes::mask spread_bytes(std::byte const* from) noexcept {
#if defined(__AVX512F__)
  auto const bytes = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from));
  return reinterpret_cast<float_lanes::mask>(_mm512_maskz_cvtepu8_epi32(0xFFFF, bytes));
#elif defined(__AVX2__) && defined(__FMA__)
  auto const bytes = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(from));
  return reinterpret_cast<float_lanes::mask>(_mm256_cvtepu8_epi32(bytes));
#elif defined(__AVX__)
  typedef std::uint8_t bytes __attribute__((vector_size(float_lanes::count)));
  bytes x;
  std::memcpy(&x, from, sizeof(x));
  return __builtin_convertvector(x, float_lanes::mask);
#else
  return repeat_bytes(from);
#endif
}

/// Of a span of 16 bytes, the elements of the lower four bits come before those of the upper ones: a
/// group is some of either, and of both with AVX-512.
template <>
struct row_reader<int4_codec> : ordered_reader<std::int8_t> {
  static constexpr std::int32_t vectors = 2, elements = 2 * float_lanes::count;
  static constexpr std::int32_t bytes = elements / 2;
  static constexpr std::int32_t span = int4_codec::span, half = span / 2;
  static constexpr bool scales_apart = true;
  static_assert(span % elements == 0, "strata: a group of elements has one scale");

  /// The last span of a row, if shorter, has its halves elsewhere.
  static constexpr std::int32_t whole(std::int32_t n) noexcept { return n / span * span; }
  static std::byte const* at(std::byte const* row, std::int32_t first) noexcept {
    return row + first / span * half + first % half;
  }
  static std::byte const* scale_at(cached_row const& row, std::int32_t first) noexcept {
    return row.scales + first / span * static_cast<std::int32_t>(sizeof(float16));
  }

  [[gnu::always_inline]] static void load_group(cached_row const& row, std::int32_t first,
                                                float_vec* out) noexcept {
    auto const scale = widen_all(scale_at(row, first));
    auto const* const group = at(row.data, first);
#if defined(__AVX512F__)  // of each of 16 numbers what it stands for has room in a vector
    float_vec const numbers = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
    float_vec const table = numbers * scale;
    auto const pairs = spread_bytes(group);
    out[0] = _mm512_maskz_permutexvar_ps(0xFFFF, reinterpret_cast<__m512i>(pairs), table);
    out[1] = _mm512_maskz_permutexvar_ps(0xFFFF, reinterpret_cast<__m512i>(pairs >> 4), table);
#else  // the four bits to the top and down again, with their sign
    auto const up = first % span < half ? 28 : 24;
    for (std::int32_t v = 0; v < vectors; ++v) {
      auto const numbers = spread_bytes(group + v * float_lanes::count) << up >> 28;
      out[v] = __builtin_convertvector(numbers, float_vec) * scale;
    }
#endif
  }

  /// A last span's bytes as those of a whole one, and zeros behind them.
  static void load_end(cached_row const& row, std::int32_t first, std::int32_t rest,
                       float_vec* out) noexcept {
    auto const begin = first / span * span;
    auto const count = smaller(rest + first - begin, span), lower = (count + 1) / 2;
    auto pairs = load_bytes(at(row.data, begin), lower);
    if (count % 2 != 0) pairs &= ~(sixteen_bytes{0xF0} << 8 * (lower - 1));
    if (lower < half) {
      auto const nibbles = ~sixteen_bytes{0} / 255 * 15;
      auto const low = pairs & nibbles, high = pairs >> 4 & nibbles;
      pairs = low | high << 8 * lower | high >> 8 * (half - lower) << 4;
    }
    std::byte repacked[half];
    std::memcpy(repacked, &pairs, sizeof(pairs));
    load_group({repacked, scale_at(row, begin)}, first - begin, out);
  }

 private:
  __extension__ typedef unsigned __int128 sixteen_bytes;  // the first lowest

  /// Up to 16: the first and the last of half as many where there are enough, for a memcpy of some
  /// count is a call.
  static sixteen_bytes load_bytes(std::byte const* from, std::int32_t count) noexcept {
    auto const both = [=](auto x) {
      constexpr auto size = static_cast<std::int32_t>(sizeof(x));
      auto last = x;
      std::memcpy(&x, from, sizeof(x));
      std::memcpy(&last, from + count - size, sizeof(x));
      return x | sixteen_bytes{last} << 8 * (count - size);
    };
    if (count >= 8) return both(std::uint64_t{});
    if (count >= 4) return both(std::uint32_t{});
    if (count >= 2) return both(std::uint16_t{});
    return static_cast<std::uint8_t>(*from);
  }
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
