// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What AdamW is told (optimizer.hpp has its formulas), and the learning rate over a run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numbers>
#include <string>

namespace lm {

/// What the learning rate does after the warm-up: both end at 0.
enum class decay_form : std::int32_t { cosine, linear };

/// Numbers of the paper's pre-training recipe (arXiv:2604.22782), except the learning rate, which
/// suits small models.
struct optimizer_options {
  double lr = 2e-3;
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double epsilon = 1e-8;
  double clip = 0.1;     ///< largest norm of the gradient; 0: none
  double warmup = 0.05;  ///< fraction of the steps in which lr rises from 0
  decay_form decay = decay_form::cosine;

  /// Empty, or the argument as the command line spells it, its value and its bound.
  std::string check() const;
  friend bool operator==(optimizer_options const&, optimizer_options const&) = default;
};

inline std::string optimizer_options::check() const {
  struct bound {
    char const* argument;
    double value, low, high;  // low <= value < high
  };
  bound const bounds[] = {{"--lr", lr, 0, 100},      {"--weight-decay", weight_decay, 0, 100},
                          {"--beta1", beta1, 0, 1},  {"--beta2", beta2, 0, 1},
                          {"--clip", clip, 0, 1e30}, {"--warmup", warmup, 0, 1}};
  for (auto const& b : bounds)
    if (!(b.value >= b.low && b.value < b.high)) {
      char text[160];
      std::snprintf(text, sizeof(text), "%s is %g; it must be from %g on and below %g", b.argument,
                    b.value, b.low, b.high);
      return text;
    }
  return "";
}

/// Learning rate of step `step` of `steps`, counted from 0.
inline double learning_rate(optimizer_options const& o, std::int64_t step, std::int64_t steps) {
  auto const rising = static_cast<std::int64_t>(std::ceil(o.warmup * static_cast<double>(steps)));
  if (step < rising) return o.lr * static_cast<double>(step + 1) / static_cast<double>(rising);
  auto const progress = static_cast<double>(step - rising) /
                        static_cast<double>(std::max(steps - rising, std::int64_t{1}));
  return o.decay == decay_form::linear ? o.lr * (1 - progress)
                                       : o.lr * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace lm
