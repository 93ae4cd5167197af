// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// K and V in 8 bits: spans of 32 elements along the head, the last one shorter, with a scale each.
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

/// A codec whose element is a small number times its span's scale, for kernels that compute with
/// the small numbers. Element i of a row lies in span i / span, whose numbers, of type `element`,
/// begin at `span_data(row, i / span)` (aligned for nothing, as rows and scales are) and whose scale
/// is `span_scale(row, scales, i / span)`; decode gives the product of the two.
///
/// - `span`         elements that share a scale; the last span of a row may be shorter
/// - `interleaved`  a scale lies in the row before its numbers; else apart, `scales[span]`
template <class C>
concept span_codec = kv_codec<C> && requires(std::byte const* row, std::int32_t i) {
  typename C::element;
  { C::span } -> std::convertible_to<std::int32_t>;
  { C::interleaved } -> std::convertible_to<bool>;
  { C::span_scale(row, row, i) } noexcept -> std::same_as<float>;
  { C::span_data(row, i) } noexcept -> std::same_as<std::byte const*>;
};

namespace detail {

/// A span in int8, beside its scale. The loops have no branch on the data and write to arrays of
/// their own, so that they vectorise.
struct int8_span {
  static constexpr std::int32_t size = 32;
  std::int8_t numbers[size];
  float16 scale;

  /// Count is a number, or a type for it: a full span's loops then have a known length.
  template <class T, class Count>
  STRATA_HOST_DEVICE void encode(T const* in, Count count) noexcept {
    float x[size];
    for (std::int32_t i = 0; i < count; ++i) x[i] = as_float(in[i]);
    // Magnitudes compare as the integers of the same bits do; NaN is the greatest.
    std::uint32_t most = 0;
    for (std::int32_t i = 0; i < count; ++i) {
      auto const magnitude = bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFF;
      most = larger(most, magnitude);
    }
    scale = span_scale<127>(bit_cast<float>(most));
    bool const finite = scale.bits < 0x7C00;
    float const step = finite && scale.bits != 0 ? to_float(scale) : 1;
    for (std::int32_t i = 0; i < count; ++i) {
      // What is not finite must not be converted to an integer.
      auto const bits = finite ? bit_cast<std::uint32_t>(x[i]) : 0;
      numbers[i] = static_cast<std::int8_t>(nearest_number<127>(bit_cast<float>(bits) / step));
    }
  }

  template <class T, class Count>
  [[gnu::always_inline]] STRATA_HOST_DEVICE void decode(T* out, Count count) const noexcept {
    float const step = to_float(scale);
    for (std::int32_t i = 0; i < count; ++i)
      out[i] = static_cast<T>(static_cast<float>(numbers[i]) * step);
  }
};

/// Calls body(first element, count) for the spans of a row; the count of a full span is a constant.
/// Always inlined, as all that kernels of several instruction sets call: a linker would keep one
/// body for all of them.
template <class Body>
[[gnu::always_inline]] STRATA_HOST_DEVICE inline void for_each_int8_span(std::int32_t n,
                                                                         Body&& body) noexcept {
  struct full {
    STRATA_HOST_DEVICE constexpr operator std::int32_t() const noexcept { return int8_span::size; }
  };
  std::int32_t i = 0;
  for (; n - i >= int8_span::size; i += int8_span::size) body(i, full{});
  if (n > i) body(i, n - i);
}

}  // namespace detail

/// int8 in spans of 32. A span's scale is its greatest magnitude / 127 as float16; an element is
/// the integer nearest to x / scale (of two the one further from 0), between -127 and 127. Doubles
/// are rounded to float first.
///
/// - Off by at most scale / 2: 1/254 of the span's greatest magnitude, and the rounding of the scale,
///   2^-11 of that. Below a greatest magnitude of 0.0078 scales are subnormal, multiples of 2^-24: a
///   span is then off by as much as 2^-25 more. It is never cut off at 127: where the nearest scale
///   would be too small for that (only below 2^-10), the next one is taken.
/// - A span of zeros has scale 0.
/// - A span that holds NaN, an infinity, or what no scale reaches (from 127 * 65520 on, some 8.3
///   million) has a scale of NaN and zeros: all of it is read as NaN, no other span is touched, and
///   nothing becomes a finite number unnoticed.
/// - What was read, stored again, gives the same bytes, from a greatest magnitude of 2^-10 on.
///
/// Interleaved rows are ggml's `block_q8_0`, [float16 scale, 32 x int8], wherever the head is a
/// multiple of 32; a shorter last block, of 2 + n % 32 bytes, is our own. The layout is ggml's and
/// so are the scales; ggml divides by the scale before it is rounded, so that a number may be its
/// neighbour there.
template <bool Interleaved>
struct int8_span_codec {
  using element = std::int8_t;
  static constexpr std::string_view name = Interleaved ? "q8_0" : "int8";
  static constexpr bool exact = false;
  static constexpr std::int32_t span = detail::int8_span::size;
  static constexpr bool interleaved = Interleaved;

  STRATA_HOST_DEVICE static constexpr std::int64_t row_bytes(std::int32_t n) noexcept {
    return n + (Interleaved ? all_scales(n) : 0);
  }
  STRATA_HOST_DEVICE static constexpr std::int64_t scale_bytes(std::int32_t n) noexcept {
    return Interleaved ? 0 : all_scales(n);
  }

  template <class T>
    requires(std::floating_point<T> || half_element<T>)
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte* scales) noexcept {
    detail::for_each_int8_span(n, [=](std::int32_t first, auto count) {
      detail::int8_span values;
      values.encode(in + first, count);
      std::memcpy(scale_at(row, scales, first / span), &values.scale, scale_size);
      std::memcpy(row + data_offset(first / span), values.numbers, static_cast<std::size_t>(count));
    });
  }

  template <std::floating_point T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE static void decode(std::byte const* row,
                                                               std::byte const* scales,
                                                               std::int32_t n, T* out) noexcept {
    detail::for_each_int8_span(n, [=](std::int32_t first, auto count) {
      detail::int8_span values;
      std::memcpy(&values.scale, scale_at(row, scales, first / span), scale_size);
      std::memcpy(values.numbers, row + data_offset(first / span), static_cast<std::size_t>(count));
      values.decode(out + first, count);
    });
  }

  /// The scale of span i of a row. `scales` is not read where scales are interleaved.
  STRATA_HOST_DEVICE static float span_scale(std::byte const* row, std::byte const* scales,
                                             std::int32_t i) noexcept {
    float16 scale;
    std::memcpy(&scale, scale_at(row, scales, i), scale_size);
    return to_float(scale);
  }
  /// The numbers of span i of a row.
  STRATA_HOST_DEVICE static constexpr std::byte const* span_data(std::byte const* row,
                                                                 std::int32_t i) noexcept {
    return row + data_offset(i);
  }

 private:
  static constexpr std::int64_t scale_size = sizeof(float16);

  STRATA_HOST_DEVICE static constexpr std::int64_t all_scales(std::int32_t n) noexcept {
    return detail::ceil_divide(std::int64_t{n}, std::int64_t{span}) * scale_size;
  }
  STRATA_HOST_DEVICE static constexpr std::int64_t data_offset(std::int32_t i) noexcept {
    return Interleaved ? i * (span + scale_size) + scale_size : std::int64_t{i} * span;
  }
  template <class Byte>
  STRATA_HOST_DEVICE static constexpr Byte* scale_at(Byte* row, Byte* scales,
                                                     std::int32_t i) noexcept {
    return Interleaved ? row + data_offset(i) - scale_size : scales + i * scale_size;
  }
};

using int8_codec = int8_span_codec<false>;  ///< scales apart: rows of n bytes
using q8_0_codec = int8_span_codec<true>;   ///< scales in the rows, as ggml's q8_0

static_assert(span_codec<int8_codec> && span_codec<q8_0_codec>);

STRATA_NAMESPACE_END
