// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What codecs of small numbers with a scale per span have in common: numbers from -Most to Most.
#pragma once

#include <concepts>
#include <cstdint>

#include <strata/cache/element.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

template <std::floating_point T>
STRATA_HOST_DEVICE constexpr float as_float(T x) noexcept {
  return static_cast<float>(x);
}
template <half_element T>
STRATA_HOST_DEVICE constexpr float as_float(T x) noexcept {
  return to_float(x);
}

/// The scale of a span whose greatest magnitude is `largest`; NaN where no finite one would do.
template <std::int32_t Most>
STRATA_HOST_DEVICE constexpr float16 span_scale(float largest) noexcept {
  auto scale = to_float16(largest / Most);
  // Below 2^-10 a scale is so small that it may have been rounded down by more than half a step in
  // Most, or to zero: the next one then.
  if ((Most + 0.5f) * to_float(scale) < largest) ++scale.bits;
  constexpr std::uint16_t infinity = 0x7C00, nan = 0x7E00;
  return {scale.bits < infinity ? scale.bits : nan};
}

/// The nearest integer, of two the one further from 0, bounded by Most. |x| <= Most + 0.5.
template <std::int32_t Most>
STRATA_HOST_DEVICE constexpr std::int32_t nearest_number(float x) noexcept {
  // Half a step, less its last bit: what lies just below a half must not be carried over.
  constexpr float below_half = 0x1.fffffep-2f;
  auto const sign = bit_cast<std::uint32_t>(x) & 0x80000000;
  auto const half = bit_cast<float>(sign | bit_cast<std::uint32_t>(below_half));
  return smaller(larger(static_cast<std::int32_t>(x + half), -Most), Most);
}

}  // namespace detail

STRATA_NAMESPACE_END
