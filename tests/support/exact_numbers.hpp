// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Numbers for tests: a stream that is the same on every machine, and comparison bit for bit.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace support {

/// SplitMix64. One seed, one stream.
class number_stream {
 public:
  explicit number_stream(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15 + 1) {}

  std::uint64_t next() {
    auto z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  /// In [-1, 1).
  double signed_unit() { return static_cast<double>(next() >> 11) * 0x1p-52 - 1; }
  /// In [0, count).
  std::int32_t below(std::int32_t count) {
    return static_cast<std::int32_t>(next() % static_cast<std::uint64_t>(count));
  }

 private:
  std::uint64_t state_;
};

/// `count` numbers in [-scale, scale).
template <class T>
std::vector<T> random_values(std::int64_t count, std::uint64_t seed, double scale = 1) {
  number_stream stream(seed);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (auto& x : values) x = static_cast<T>(stream.signed_unit() * scale);
  return values;
}

/// Same size and same bytes: NaN equals itself, and 0 is not -0.
template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// The same number, 0 and -0 told apart, or none in both.
inline bool same_with_sign(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b && std::signbit(a) == std::signbit(b);
}

/// Keeps the greater of two errors. One that is not finite counts as infinite: std::max would pass by
/// NaN.
inline void keep_worst(double& worst, double error) {
  worst = std::fmax(worst, std::isfinite(error) ? error : static_cast<double>(INFINITY));
}

/// The greatest |a - b| / max(1, |b|); infinite where sizes differ or anything is not finite.
template <class T, class U>
double worst_error(std::vector<T> const& a, std::vector<U> const& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    auto const x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    keep_worst(worst, std::abs(x - y) / std::fmax(1, std::abs(y)));
  }
  return worst;
}

}  // namespace support
