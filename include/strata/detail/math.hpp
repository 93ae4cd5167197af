// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Integer helpers that run on host and device alike: std::min does not, and <algorithm> takes 0.2 s
// to compile.
#pragma once

#include <cstdint>
#include <limits>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

// Constants, because device code may not call what names them.
inline constexpr std::int32_t least_int32 = (std::numeric_limits<std::int32_t>::min)();
inline constexpr std::int32_t most_int32 = (std::numeric_limits<std::int32_t>::max)();

template <class T>
STRATA_HOST_DEVICE constexpr T smaller(T a, T b) noexcept {
  return b < a ? b : a;
}

template <class T>
STRATA_HOST_DEVICE constexpr T larger(T a, T b) noexcept {
  return a < b ? b : a;
}

/// std::bit_cast, which device code may not call.
template <class To, class From>
STRATA_HOST_DEVICE constexpr To bit_cast(From const& from) noexcept {
  return __builtin_bit_cast(To, from);
}

/// a / b rounded up, for a >= 0 and b > 0.
template <class T>
STRATA_HOST_DEVICE constexpr T ceil_divide(T a, T b) noexcept {
  return a / b + (a % b != 0);
}

}  // namespace detail

STRATA_NAMESPACE_END
