// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows for codecs of spans of 32, and what such a codec is to make of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace support {

inline std::vector<float> random_row(std::int32_t n, std::uint32_t seed, int exponent = 0) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> row(static_cast<std::size_t>(n));
  for (auto& x : row) x = std::ldexp(normal(engine), exponent);
  return row;
}

/// The greatest magnitude in the span of element i.
inline double largest_of(std::vector<float> const& in, std::size_t i) {
  double largest = 0;
  auto const begin = i / 32 * 32, end = std::min(begin + 32, in.size());
  for (auto j = begin; j < end; ++j) largest = std::max(largest, std::abs(double{in[j]}));
  return largest;
}

/// The scale as codecs of numbers up to Most document it: multiples of 2^-24, of which normal ones
/// have 11 bits.
template <std::int32_t Most>
double expected_scale(double largest) {
  auto const exact = static_cast<double>(static_cast<float>(largest / Most));
  auto const place = exact == 0 ? -24 : std::max(std::ilogb(exact) - 10, -24);
  auto const unit = std::ldexp(1.0, place);
  auto const nearest = std::nearbyint(exact / unit) * unit;  // to even is the default mode
  return (Most + 0.5) * nearest < largest ? nearest + unit : nearest;
}

}  // namespace support
