// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A codec of another's rows after a rotation that spreads what stands out: QuaRot's Hadamard
// rotation (arXiv:2404.00456), of K alone.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// The first block of the rotation of n elements: as long a power of two as fits, up to 256, and
/// what its sums are multiplied by.
template <std::floating_point T>
struct hadamard_block {
  std::int32_t length = 1;
  T factor = 1;  // 1 / sqrt(length)

  [[gnu::always_inline]] STRATA_HOST_DEVICE explicit constexpr hadamard_block(
      std::int32_t n) noexcept {
    constexpr T factors[] = {
        T(1),     T(0.70710678118654752440), T(0.5),   T(0.35355339059327376220),
        T(0.25),  T(0.17677669529663688110), T(0.125), T(0.088388347648318440550),
        T(0.0625)};
    std::int32_t power = 0;
    while (power < 8 && n >= 2 << power) ++power;
    length = 1 << power;
    factor = factors[power];
  }
};

}  // namespace detail

/// Multiplies x by orthonormal Hadamard matrices (Sylvester's): the first block of elements is as
/// long a power of two as fits, up to 256, and so on: 128; 64 and 16 of 80. Its own inverse, but for
/// rounding (2^-24 of a block's norm, times the logarithm of its length). n log2(n) additions.
template <std::floating_point T>
[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr void hadamard_rotate(T* x,
                                                                         std::int32_t n) noexcept {
  while (n > 0) {
    detail::hadamard_block<T> const block(n);
    for (std::int32_t step = 1; step < block.length; step *= 2)
      for (std::int32_t begin = 0; begin < block.length; begin += 2 * step)
        for (std::int32_t i = begin; i < begin + step; ++i) {
          auto const a = x[i], b = x[i + step];
          x[i] = a + b;
          x[i + step] = a - b;
        }
    for (std::int32_t i = 0; i < block.length; ++i) x[i] *= block.factor;
    x += block.length;
    n -= block.length;
  }
}

namespace detail {

/// The name of a rotated codec, "rot_" and the codec's own, where that has one.
template <class Codec>
struct rotated_name {};
template <named_codec Codec>
struct rotated_name<Codec> {
  static_assert(std::string_view(Codec::name).size() <= 12,
                "strata: with rot_ before it a codec's name has at most 16 characters");

 private:
  struct letters {
    char text[16] = {'r', 'o', 't', '_'};
    std::size_t size = 4;
    constexpr letters() noexcept {
      for (char const c : std::string_view(Codec::name)) text[size++] = c;
    }
  };
  static constexpr letters all{};

 public:
  static constexpr std::string_view name{all.text, all.size};
};

/// Whose rows are made of parts that begin at `row_bytes(first)` and `scale_bytes(first)`: no scale
/// is of all of a row.
template <class Codec>
concept divisible_codec = requires {
  typename std::bool_constant<Codec::row_bytes(0) == 0 && Codec::scale_bytes(0) == 0>;
} && Codec::row_bytes(0) == 0 && Codec::scale_bytes(0) == 0;

}  // namespace detail

/// Codec's rows of rotated numbers; decode rotates them back. A dot product of two rotated rows is
/// that of the rows themselves, so a kernel may instead read K by `unrotated`, as it lies, and
/// rotate the query once.
///
/// Of a block of the rotation an element's share of one that stands out is 1 / sqrt(length) of it,
/// 0.09 of 128: a span's greatest magnitude falls by up to that, and its steps with it. Errors of the
/// codec stay as large in norm, and are those of all elements of a block alike.
template <kv_codec Codec>
struct rotated_codec : detail::rotated_name<Codec> {
  static_assert(!head_scaled_codec<Codec>,
                "strata: head scales are measured on K as it is; rotated, they would be others");
  static_assert(
      detail::divisible_codec<Codec>,
      "strata: of a rotated codec row_bytes and scale_bytes are constexpr, and 0 of 0: rows "
      "are encoded 256 elements at a time");
  using unrotated = Codec;
  static constexpr bool exact = false;

  STRATA_HOST_DEVICE static constexpr std::int64_t row_bytes(std::int32_t n) noexcept {
    return Codec::row_bytes(n);
  }
  STRATA_HOST_DEVICE static constexpr std::int64_t scale_bytes(std::int32_t n) noexcept {
    return Codec::scale_bytes(n);
  }

  template <class T>
    requires(std::floating_point<T> || half_element<T>)
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte* scales) noexcept {
    for (std::int32_t first = 0; first < n; first += chunk) {
      auto const count = detail::smaller(n - first, chunk);
      decltype(detail::widen(in[0])) x[chunk];
      for (std::int32_t i = 0; i < count; ++i) x[i] = detail::widen(in[first + i]);
      hadamard_rotate(x, count);
      Codec::encode(x, count, row + Codec::row_bytes(first), scales + Codec::scale_bytes(first));
    }
  }

  template <std::floating_point T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE static void decode(std::byte const* row,
                                                               std::byte const* scales,
                                                               std::int32_t n, T* out) noexcept {
    for (std::int32_t first = 0; first < n; first += chunk) {
      auto const count = detail::smaller(n - first, chunk);
      Codec::decode(row + Codec::row_bytes(first), scales + Codec::scale_bytes(first), count,
                    out + first);
      hadamard_rotate(out + first, count);
    }
  }

 private:
  /// Whole blocks of the rotation, and whole spans of every codec that ships.
  static constexpr std::int32_t chunk = 256;
};

namespace detail {

/// What kernels read rows of K by, and whether queries are rotated for it.
template <class Codec>
struct stored_as {
  using codec = Codec;
  static constexpr bool rotated = false;
};
template <class Codec>
struct stored_as<rotated_codec<Codec>> {
  using codec = typename rotated_codec<Codec>::unrotated;
  static constexpr bool rotated = true;
};

}  // namespace detail

STRATA_NAMESPACE_END
