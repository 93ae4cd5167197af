// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Pearson's chi-square test, for draws with a fixed seed: a right sampler passes for ever, a wrong
// one fails for ever.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace support {

/// The value that chi-square with that many degrees of freedom exceeds about once in a million
/// (Wilson and Hilferty's approximation; 4.7534 is the normal quantile).
inline double chi_square_limit(std::int64_t degrees) {
  auto const spread = 2.0 / (9.0 * static_cast<double>(degrees));
  return static_cast<double>(degrees) * std::pow(1 - spread + 4.7534 * std::sqrt(spread), 3);
}

/// Whether counts fit the probabilities. What has probability 0 must not occur at all; cells where
/// fewer than five are expected are lumped together, as the test demands.
inline bool fits(std::span<std::int64_t const> counts, std::span<double const> probabilities) {
  double total = 0, mass = 0;
  for (auto const c : counts) total += static_cast<double>(c);
  double chi_square = 0, rest_seen = 0, rest_expected = 0;
  std::int64_t cells = 0;
  auto const add = [&](double seen, double expected) {
    chi_square += (seen - expected) * (seen - expected) / expected;
    ++cells;
  };
  for (std::size_t i = 0; i < counts.size(); ++i) {
    auto const seen = static_cast<double>(counts[i]);
    auto const expected = probabilities[i] * total;
    mass += probabilities[i];
    if (probabilities[i] == 0 && counts[i] != 0) return false;
    if (expected >= 5)
      add(seen, expected);
    else
      rest_seen += seen, rest_expected += expected;
  }
  if (std::abs(mass - 1) > 1e-9) return false;
  if (rest_expected >= 5)
    add(rest_seen, rest_expected);
  else if (rest_seen > 40)
    return false;
  return cells < 2 || chi_square <= chi_square_limit(cells - 1);
}

}  // namespace support
