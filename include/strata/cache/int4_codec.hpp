// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// K and V in 4 bits: spans of 32 elements along the head, the last one shorter, with a scale each.
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
#include <strata/detail/span_numbers.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// A span in int4, beside its scale. Byte j holds element j below and element j + half above, half
/// being half of the span, rounded up: so that a vector of bytes gives two vectors in order.
struct int4_span {
  static constexpr std::int32_t size = 32;
  std::uint8_t pairs[size / 2] = {};
  float16 scale;

  template <class T>
  STRATA_HOST_DEVICE void encode(T const* in, std::int32_t count) noexcept {
    float x[size] = {};
    std::uint32_t most = 0;
    for (std::int32_t i = 0; i < count; ++i) {
      x[i] = as_float(in[i]);
      // Magnitudes compare as the integers of the same bits do; NaN is the greatest.
      auto const magnitude = bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFF;
      most = larger(most, magnitude);
    }
    scale = span_scale<7>(bit_cast<float>(most));
    bool const finite = scale.bits < 0x7C00;
    float const step = finite && scale.bits != 0 ? to_float(scale) : 1;
    auto const half = (count + 1) / 2;
    for (std::int32_t j = 0; j < half; ++j) {
      auto const high = j + half < count ? x[j + half] : 0;
      auto const low = nearest_number<7>(finite ? x[j] / step : 0);
      auto const up = nearest_number<7>(finite ? high / step : 0);
      pairs[j] = static_cast<std::uint8_t>((low & 15) | (up & 15) << 4);
    }
  }

  template <class T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE void decode(T* out, std::int32_t count) const noexcept {
    float const step = to_float(scale);
    auto const half = (count + 1) / 2;
    for (std::int32_t j = 0; j < half; ++j) out[j] = static_cast<T>(number(pairs[j] & 15) * step);
    for (std::int32_t j = 0; j + half < count; ++j)
      out[half + j] = static_cast<T>(number(pairs[j] >> 4) * step);
  }

 private:
  /// Of four bits, with their sign.
  [[gnu::always_inline]] STRATA_HOST_DEVICE static constexpr float number(
      std::int32_t bits) noexcept {
    return static_cast<float>((bits ^ 8) - 8);
  }
};

}  // namespace detail

/// int4 in spans of 32. A span's scale is its greatest magnitude / 7 as float16, kept apart; an
/// element is the integer nearest to x / scale (of two the one further from 0), between -7 and 7.
/// Half a byte an element and 2 bytes a span: 4.5 bits.
///
/// - Off by at most scale / 2: 1/14 of the span's greatest magnitude, and the rounding of the scale,
///   2^-11 of that. Below a greatest magnitude of 0.00043 scales are subnormal, multiples of 2^-24: a
///   span is then off by as much as 2^-25 more. Never cut off, zeros, NaN, infinities and what no
///   scale reaches (from 7 * 65520 on): as of int8.
/// - One element that is much greater than the others of its span costs them their bits. Of K, where
///   some channels are (RoPE's slow pairs, biases), `rotated_codec<int4_codec>` spreads them.
/// - What was read, stored again, gives the same bytes, from a greatest magnitude of 2^-10 on.
struct int4_codec {
  static constexpr std::string_view name = "int4";
  static constexpr bool exact = false;
  static constexpr std::int32_t span = detail::int4_span::size;

  STRATA_HOST_DEVICE static constexpr std::int64_t row_bytes(std::int32_t n) noexcept {
    return detail::ceil_divide(std::int64_t{n}, std::int64_t{2});
  }
  STRATA_HOST_DEVICE static constexpr std::int64_t scale_bytes(std::int32_t n) noexcept {
    return detail::ceil_divide(std::int64_t{n}, std::int64_t{span}) * scale_size;
  }

  template <class T>
    requires(std::floating_point<T> || half_element<T>)
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte* scales) noexcept {
    for (std::int32_t first = 0; first < n; first += span) {
      auto const count = detail::smaller(n - first, span);
      detail::int4_span values;
      values.encode(in + first, count);
      std::memcpy(scales + first / span * scale_size, &values.scale, scale_size);
      std::memcpy(row + first / 2, values.pairs, static_cast<std::size_t>((count + 1) / 2));
    }
  }

  template <std::floating_point T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE static void decode(std::byte const* row,
                                                               std::byte const* scales,
                                                               std::int32_t n, T* out) noexcept {
    for (std::int32_t first = 0; first < n; first += span) {
      auto const count = detail::smaller(n - first, span);
      detail::int4_span values;
      std::memcpy(&values.scale, scales + first / span * scale_size, scale_size);
      std::memcpy(values.pairs, row + first / 2, static_cast<std::size_t>((count + 1) / 2));
      values.decode(out + first, count);
    }
  }

 private:
  static constexpr std::int64_t scale_size = sizeof(float16);
};

STRATA_NAMESPACE_END
