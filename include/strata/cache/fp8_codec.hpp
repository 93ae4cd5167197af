// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// K and V in 8 bits of floating point, with one scale for all rows of a KV head. The element has
// the same bits as __nv_fp8_e4m3: an own type, because no host compiler has one. Conversions are
// always inlined and without a branch on the data, as those of the 16-bit elements are.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

/// OCP E4M3, the "fn" form: 1 sign, 4 exponent (bias 7), 3 fraction bits. No infinities; NaN is
/// 0x7F and 0xFF. Normal from 2^-6 to 448; below lie multiples of 2^-9.
struct float8_e4m3 {
  std::uint8_t bits = 0;
  friend constexpr bool operator==(float8_e4m3, float8_e4m3) noexcept = default;
};

/// Exact.
[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr float to_float(float8_e4m3 x) noexcept {
  auto const sign = static_cast<std::uint32_t>(x.bits & 0x80) << 24;
  auto const magnitude = static_cast<std::uint32_t>(x.bits & 0x7F);
  // The bits as a binary32 of a far too small exponent, scaled back by 2^120 as a float16 is by
  // 2^112: exact, and subnormals come along.
  auto const finite = detail::bit_cast<float>(magnitude << 20) * 0x1p120f;
  // Set and not chosen: g++ 12 makes a branch of a choice of the product, and no vectors (AVX2: 6
  // times the time, decode in a loop). The same below.
  auto const nan = magnitude == 0x7F ? 0x7FC00000u : 0u;
  return detail::bit_cast<float>(sign | detail::bit_cast<std::uint32_t>(finite) | nan);
}

/// Rounds to nearest, ties to even. Magnitudes above 448 become 448, infinities too, as with CUDA's
/// __NV_SATFINITE; NaN stays NaN.
[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr float8_e4m3 to_float8_e4m3(float x) noexcept {
  auto const bits = detail::bit_cast<std::uint32_t>(x);
  auto const sign = bits >> 24 & 0x80;
  auto const magnitude = bits & 0x7FFFFFFF;
  constexpr std::uint32_t largest = 0x43E00000, smallest_normal = 0x3C800000;  // 448, 2^-6
  auto const bounded = detail::smaller(magnitude, largest);
  // The power of two below x, and one 2^20 times as large. Adding that leaves x in eighths of the
  // power, rounded, in the last bits of the fraction: 8 to 16, and of subnormals 0 to 8.
  auto const power = detail::larger(bounded & 0x7F800000, smallest_normal);
  auto const high = power + (20 << 23);
  auto const sum = detail::bit_cast<float>(bounded) + detail::bit_cast<float>(high);
  auto const eighths = detail::bit_cast<std::uint32_t>(sum) - high;
  bool const is_nan = magnitude > 0x7F800000;  // bounded: the code after that of 448
  auto const code = ((power - smallest_normal) >> 20) + eighths + is_nan;
  return {static_cast<std::uint8_t>(sign | code)};
}

/// e4m3, a byte per element, with one scale for all rows of a KV head. Kept is the element nearest
/// to x / scale, ties to even. Floats are divided in float, doubles in double and rounded once;
/// decode gives element * scale, a float.
///
/// - Scales are static: see `head_scaled_codec`. A good one is a head's greatest magnitude / 448,
///   measured on some text. With the default, 1, what is kept are the numbers themselves.
/// - Off by at most 2^-4 of x itself while |x| is between 2^-6 and 448 times the scale, half a step
///   of 3 fraction bits, and by 2^-10 times the scale below; and by the roundings of the quotient
///   and the product, 2^-24 of x each.
/// - Beyond 448 times the scale, infinities included, x is cut off there: a scale that is too small
///   goes unnoticed. int8, which finds its scales itself, never does that.
/// - NaN is read as NaN, and spoils no other element.
/// - What was read, stored again, gives the same bytes, for scales from 2^-117 to 2^119.
struct fp8_codec {
  using element = float8_e4m3;
  static constexpr std::string_view name = "fp8_e4m3";
  static constexpr bool exact = false;
  static constexpr bool head_scaled = true;

  STRATA_HOST_DEVICE static constexpr std::int64_t row_bytes(std::int32_t n) noexcept { return n; }
  STRATA_HOST_DEVICE static constexpr std::int64_t scale_bytes(std::int32_t) noexcept {
    return sizeof(float);
  }

  /// Reads the scale and writes the row.
  template <class T>
    requires(std::floating_point<T> || half_element<T>)
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte const* scales) noexcept {
    float const scale = scale_at(scales);
    for (std::int32_t i = 0; i < n; ++i) {
      auto const x = to_float8_e4m3(detail::round_to_odd(detail::widen(in[i]) / scale));
      std::memcpy(row + i, &x, sizeof(x));
    }
  }

  template <std::floating_point T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE static void decode(std::byte const* row,
                                                               std::byte const* scales,
                                                               std::int32_t n, T* out) noexcept {
    float const scale = scale_at(scales);
    for (std::int32_t i = 0; i < n; ++i) {
      float8_e4m3 x;
      std::memcpy(&x, row + i, sizeof(x));
      out[i] = static_cast<T>(to_float(x) * scale);
    }
  }

 private:
  [[gnu::always_inline]] STRATA_HOST_DEVICE static float scale_at(
      std::byte const* scales) noexcept {
    float scale;
    std::memcpy(&scale, scales, sizeof(scale));
    return scale;
  }
};

STRATA_NAMESPACE_END
