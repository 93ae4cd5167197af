// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A codec: how the elements of one head of one token are kept in memory.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <strata/cache/element.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

/// A codec is a type without state. A row is one head's K or V of one token, `n` elements.
///
/// - `row_bytes(n)`    bytes of a row in the tensor itself; scales that are interleaved count here
/// - `scale_bytes(n)`  bytes of a row's scales, where those are kept apart; else 0. Of a
///                     `head_scaled_codec`, bytes of the scale that a KV head's rows share
/// - `encode(in, n, row, scales)`, `decode(row, scales, n, out)` for in, out of float or double
///                     (`encode` may take float16 and bfloat16, too: then runs store such rows)
/// - `exact`           decode(encode(x)) == x for every float x
/// - Threads: all are static and have no state; any number, at the same time
template <class C>
concept kv_codec =
    requires(float const* in, float* out, std::int32_t n, std::byte* row, std::byte const* crow) {
      { C::row_bytes(n) } noexcept -> std::same_as<std::int64_t>;
      { C::scale_bytes(n) } noexcept -> std::same_as<std::int64_t>;
      { C::encode(in, n, row, row) } noexcept;
      { C::decode(crow, crow, n, out) } noexcept;
      { C::exact } -> std::convertible_to<bool>;
    };

/// A codec with a name that stands for its bytes, wherever they were written: `name`, some
/// characters. Snapshots ask for it.
template <class C>
concept named_codec = kv_codec<C> && requires {
  { C::name } -> std::convertible_to<std::string_view>;
};

/// A codec of which all rows of one KV head of one stored tensor share a scale, a positive float
/// that does not change: `head_scaled` is true. Not encode makes it but who owns the cache, before
/// the first row is stored: see `head_scales`, which storages take. It lies apart from the rows,
/// aligned as a float is, once for each KV head of a block, where a step writes it with the rows.
/// Encode reads it at `scales`.
template <class C>
concept head_scaled_codec = kv_codec<C> && C::head_scaled;

namespace detail {

/// A double as a float whose last bit is set where something was cut off (round to odd). Rounding
/// that once more to 16 bits gives what rounding the double at once would.
STRATA_HOST_DEVICE constexpr float round_to_odd(double x) noexcept {
  auto const nearest = static_cast<float>(x);
  auto const back = static_cast<double>(nearest);
  if (back == x || x != x) return nearest;
  auto bits = detail::bit_cast<std::uint32_t>(nearest);
  bool const away = x < 0 ? back < x : back > x;
  if (away) --bits;
  return detail::bit_cast<float>(bits | 1);
}
STRATA_HOST_DEVICE constexpr float round_to_odd(float x) noexcept { return x; }

template <class T>
struct element_traits;

template <>
struct element_traits<double> {
  static constexpr std::string_view name = "f64";
  static constexpr bool exact = true;
  STRATA_HOST_DEVICE static constexpr double decode(double x) noexcept { return x; }
  STRATA_HOST_DEVICE static constexpr double encode(double x) noexcept { return x; }
};

template <>
struct element_traits<float> {
  static constexpr std::string_view name = "f32";
  static constexpr bool exact = true;
  STRATA_HOST_DEVICE static constexpr float decode(float x) noexcept { return x; }
  STRATA_HOST_DEVICE static constexpr float encode(double x) noexcept {
    return static_cast<float>(x);
  }
};

template <>
struct element_traits<float16> {
  static constexpr std::string_view name = "f16";
  static constexpr bool exact = false;
  STRATA_HOST_DEVICE static constexpr float decode(float16 x) noexcept { return to_float(x); }
  template <class T>
  STRATA_HOST_DEVICE static constexpr float16 encode(T x) noexcept {
    return to_float16(round_to_odd(x));
  }
};

template <>
struct element_traits<bfloat16> {
  static constexpr std::string_view name = "bf16";
  static constexpr bool exact = false;
  STRATA_HOST_DEVICE static constexpr float decode(bfloat16 x) noexcept { return to_float(x); }
  template <class T>
  STRATA_HOST_DEVICE static constexpr bfloat16 encode(T x) noexcept {
    return to_bfloat16(round_to_odd(x));
  }
};

}  // namespace detail

/// One number per element, no scales.
template <class Element>
struct plain_codec {
  using element = Element;
  static constexpr std::string_view name = detail::element_traits<Element>::name;
  static constexpr bool exact = detail::element_traits<Element>::exact;

  STRATA_HOST_DEVICE static constexpr std::int64_t row_bytes(std::int32_t n) noexcept {
    return std::int64_t{n} * static_cast<std::int64_t>(sizeof(Element));
  }
  STRATA_HOST_DEVICE static constexpr std::int64_t scale_bytes(std::int32_t) noexcept { return 0; }

  template <std::floating_point T>
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte* /*scales*/) noexcept {
    for (std::int32_t i = 0; i < n; ++i) {
      auto const x = detail::element_traits<Element>::encode(in[i]);
      std::memcpy(row + std::int64_t{i} * static_cast<std::int64_t>(sizeof(Element)), &x,
                  sizeof(Element));
    }
  }

  /// Elements of 16 bits: as they are where they are the codec's own, else by way of float.
  template <half_element T>
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte* scales) noexcept {
    if constexpr (std::same_as<T, Element>) {
      if (n > 0) std::memcpy(row, in, static_cast<std::size_t>(row_bytes(n)));
    } else {
      for (std::int32_t i = 0; i < n; ++i) {
        float const x = to_float(in[i]);
        encode(&x, 1, row + row_bytes(i), scales);
      }
    }
  }

  /// Always inlined: kernels of several instruction sets call it, and a linker would keep one body
  /// for all of them.
  template <std::floating_point T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE static void decode(std::byte const* row,
                                                               std::byte const* /*scales*/,
                                                               std::int32_t n, T* out) noexcept {
    for (std::int32_t i = 0; i < n; ++i) {
      Element x;
      std::memcpy(&x, row + std::int64_t{i} * static_cast<std::int64_t>(sizeof(Element)),
                  sizeof(Element));
      out[i] = static_cast<T>(detail::element_traits<Element>::decode(x));
    }
  }
};

using f64_codec = plain_codec<double>;  ///< for tests: the cache rounds nothing
using f32_codec = plain_codec<float>;
using f16_codec = plain_codec<float16>;
using bf16_codec = plain_codec<bfloat16>;

STRATA_NAMESPACE_END
