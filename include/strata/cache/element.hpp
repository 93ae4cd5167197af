// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// 16-bit storage types with the same bits as __half and __nv_bfloat16. Own types, because _Float16
// and __bf16 are not in both of g++ 12 and clang 14. Conversions round to nearest, ties to even,
// and keep infinities and NaN; they have no branch on the data, so that loops over them vectorise.
// They are always inlined: kernels of several instruction sets call them, and a linker would keep
// one body for all of them.
#pragma once

#include <concepts>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

/// IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.
struct float16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(float16, float16) noexcept = default;
};

/// The upper half of a binary32: 1 sign, 8 exponent, 7 fraction bits.
struct bfloat16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bfloat16, bfloat16) noexcept = default;
};

/// An element of 16 bits.
template <class T>
concept half_element = std::same_as<T, float16> || std::same_as<T, bfloat16>;

[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr float to_float(bfloat16 x) noexcept {
  return detail::bit_cast<float>(std::uint32_t{x.bits} << 16);
}

[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr bfloat16 to_bfloat16(float x) noexcept {
  auto const bits = detail::bit_cast<std::uint32_t>(x);
  auto const rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  auto const quiet_nan = bits >> 16 | 0x40;  // rounding could carry a NaN over into infinity
  bool const is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return {static_cast<std::uint16_t>(is_nan ? quiet_nan : rounded)};
}

[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr float to_float(float16 x) noexcept {
  auto const sign = static_cast<std::uint32_t>(x.bits & 0x8000) << 16;
  auto const magnitude = static_cast<std::uint32_t>(x.bits & 0x7FFF);
  // Finite: the bits as a binary32 of a far too small exponent, scaled back by 2^112. The product
  // is exact and takes subnormals along.
  auto const finite = detail::bit_cast<float>(magnitude << 13) * 0x1p112f;
  bool const special = magnitude >= 0x7C00;  // infinity or NaN
  auto const bits =
      special ? (magnitude << 13 | 0x7F800000) : detail::bit_cast<std::uint32_t>(finite);
  return detail::bit_cast<float>(sign | bits);
}

[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr float16 to_float16(float x) noexcept {
  auto const bits = detail::bit_cast<std::uint32_t>(x);
  auto const sign = bits >> 16 & 0x8000;
  auto const magnitude = bits & 0x7FFFFFFF;
  // Normal results: re-bias the exponent (112 << 23) and round off 13 fraction bits.
  auto const normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  // Subnormal results (below 2^-14): adding 0.5 leaves multiples of 2^-24 in the fraction, rounded.
  auto const subnormal =
      detail::bit_cast<std::uint32_t>(
          detail::bit_cast<float>(magnitude < 0x38800000 ? magnitude : 0) + 0.5f) -
      0x3F000000;
  auto const special = magnitude > 0x7F800000 ? 0x7E00u : 0x7C00u;
  auto const half = magnitude >= 0x477FF000  ? special  // 65520 and above round to infinity
                    : magnitude < 0x38800000 ? subnormal
                                             : normal;
  return {static_cast<std::uint16_t>(sign | half)};
}

namespace detail {

/// An element of queries or outputs as what sums are kept in, and back, rounded to nearest.
template <std::floating_point T>
[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr T widen(T x) noexcept {
  return x;
}
template <half_element T>
[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr float widen(T x) noexcept {
  return to_float(x);
}
template <class T, class A>
[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr T narrow(A x) noexcept {
  if constexpr (std::same_as<T, float16>)
    return to_float16(x);
  else if constexpr (std::same_as<T, bfloat16>)
    return to_bfloat16(x);
  else
    return static_cast<T>(x);
}

}  // namespace detail

STRATA_NAMESPACE_END
