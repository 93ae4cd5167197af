// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A covering design: for any two factors of an experiment, every pair of their levels meets in some
// case, without the product of all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "exact_numbers.hpp"

namespace support {

using choice = std::vector<std::int32_t>;  ///< [factors], a level of each

/// Which pairs of levels have met.
class met_pairs {
 public:
  explicit met_pairs(choice const& levels) : levels_(levels) {
    for (auto const n : levels) {
      first_.push_back(total_);
      total_ += static_cast<std::size_t>(n);
    }
    met_.assign(total_ * total_, false);
  }

  void add(choice const& c) {
    for (std::size_t i = 0; i < c.size(); ++i)
      for (std::size_t j = i + 1; j < c.size(); ++j) met_[at(i, c[i], j, c[j])] = true;
  }
  bool have_met(std::size_t i, std::int32_t a, std::size_t j, std::int32_t b) const {
    return met_[at(i, a, j, b)];
  }
  /// How many pairs would meet for the first time.
  std::int32_t gain(choice const& c) const {
    std::int32_t count = 0;
    for (std::size_t i = 0; i < c.size(); ++i)
      for (std::size_t j = i + 1; j < c.size(); ++j) count += !met_[at(i, c[i], j, c[j])];
    return count;
  }
  /// Calls body(factor, level, factor, level) for the pairs that have not met.
  template <class Body>
  void for_each_missing(Body&& body) const {
    for (std::size_t i = 0; i < levels_.size(); ++i)
      for (std::size_t j = i + 1; j < levels_.size(); ++j)
        for (std::int32_t a = 0; a < levels_[i]; ++a)
          for (std::int32_t b = 0; b < levels_[j]; ++b)
            if (!met_[at(i, a, j, b)]) body(i, a, j, b);
  }

 private:
  std::size_t at(std::size_t i, std::int32_t a, std::size_t j, std::int32_t b) const {
    return (first_[i] + static_cast<std::size_t>(a)) * total_ + first_[j] +
           static_cast<std::size_t>(b);
  }

  choice levels_;
  std::vector<std::size_t> first_;  // of each factor, among all levels
  std::size_t total_ = 0;
  std::vector<bool> met_;
};

/// Cases that `fits` allows, drawn at random around each pair that has not met, the one kept that
/// lets most others meet. A pair for which no case is found is left out.
template <class Fits>
std::vector<choice> cover_pairs(choice const& levels, std::uint64_t seed, Fits&& fits) {
  constexpr int wanted = 20, most_draws = 5000;  // 20 to choose from
  std::vector<choice> design;
  met_pairs met(levels);
  number_stream stream(seed);
  auto const draw_around = [&](std::size_t i, std::int32_t a, std::size_t j, std::int32_t b) {
    choice best;
    std::int32_t gain = 0;
    for (int draws = 0, found = 0; draws < most_draws && found < wanted; ++draws) {
      choice c;
      for (auto const n : levels) c.push_back(stream.below(n));
      c[i] = a, c[j] = b;
      if (!fits(c)) continue;
      ++found;
      if (auto const g = met.gain(c); g > gain) best = c, gain = g;
    }
    return best;
  };
  met_pairs(levels).for_each_missing([&](auto i, auto a, auto j, auto b) {
    if (met.have_met(i, a, j, b)) return;
    if (auto const c = draw_around(i, a, j, b); !c.empty()) {
      met.add(c);
      design.push_back(c);
    }
  });
  return design;
}

}  // namespace support
