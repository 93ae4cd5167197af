// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Means over the tokens of a text, and how far to trust them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "evaluate.hpp"
#include "report.hpp"
#include "units.hpp"

namespace lm {

/// A mean per token, and its standard error: how far the mean of another text of that kind and
/// length would lie from it. A window's tokens depend on each other, so that windows are what is
/// counted; the error says nothing of models that were trained once more.
struct estimate {
  double mean = 0;
  double error = 0;
};

/// sums: [windows], of each the sum over its scored tokens. The ratio estimator: windows that score
/// more tokens count for more.
inline estimate estimate_of(std::span<double const> sums, std::span<window const> windows) {
  double sum = 0, tokens = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sum += sums[i];
    tokens += windows[i].scored();
  }
  if (tokens == 0) return {};
  estimate of{sum / tokens, 0};
  double squares = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    auto const off = sums[i] - of.mean * windows[i].scored();
    squares += off * off;
  }
  auto const n = static_cast<double>(sums.size());
  if (n > 1) of.error = std::sqrt(squares * n / (n - 1)) / tokens;
  return of;
}

/// Of differences a - b, window by window: what both find hard alike drops out.
inline estimate difference_of(std::span<double const> a, std::span<double const> b,
                              std::span<window const> windows) {
  std::vector<double> differences(a.begin(), a.end());
  for (std::size_t i = 0; i < a.size(); ++i) differences[i] -= b[i];
  return estimate_of(differences, windows);
}

inline std::string estimate_text(estimate const& e) {
  return text("%.4f +- %.4f", e.mean, e.error);
}
/// Of a difference, with its sign.
inline std::string difference_text(estimate const& e) {
  return text("%+.4f +- %.4f", e.mean, e.error);
}
inline json_value to_json(estimate const& e) { return {{"mean", e.mean}, {"error", e.error}}; }

}  // namespace lm
