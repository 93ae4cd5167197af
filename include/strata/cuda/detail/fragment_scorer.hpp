// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// From dot products to weights in few instructions: fragments have many of them.
#pragma once

#include <cstdint>

#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr float log2_of_e = 1.4426950408889634f;

/// Scores of dot products in base 2. Its division is the host's: one by zero, which nobody asks
/// for, is a call of 100 instructions on a device.
struct fragment_scorer {
  float factor = 0;   ///< of a dot product: what tanh is of, or the score itself in base 2
  float softcap = 0;  ///< in base 2; 0: none

  fragment_scorer() = default;
  explicit fragment_scorer(strata::detail::scorer<float> const& rule)
      : factor(rule.softcap > 0 ? rule.scale / rule.softcap : rule.scale * log2_of_e),
        softcap(rule.softcap * log2_of_e) {}

  /// The same for keys that have a scale of their own.
  STRATA_DEVICE fragment_scorer times(float scale) const {
    auto scaled = *this;
    scaled.factor *= scale;
    return scaled;
  }

  /// Whether a score is no more than `factor` dot products, and the greatest product has the
  /// greatest score: one multiply-add then subtracts the maximum, too.
  STRATA_DEVICE bool linear() const { return softcap == 0 && factor > 0; }

  /// tanh, to some 2^-22 of 1: scores are off by so much of the softcap.
  template <thread_block Block>
  STRATA_DEVICE static float tanh(Block const& block, float x) {
    return 1 - 2 * block.reciprocal(1 + block.exp2(2 * log2_of_e * x));
  }
  /// The score; `slope` becomes its derivative over scale * dot product.
  template <thread_block Block>
  STRATA_DEVICE float score(Block const& block, float dot, float& slope) const {
    float const x = dot * factor;
    slope = 1;
    if (softcap == 0) return x;
    float const t = tanh(block, x);
    slope = 1 - t * t;
    return softcap * t;
  }
};

/// The rule of a call, and the same for fragments.
struct call_rule : strata::detail::scorer<float> {
  fragment_scorer fragments;

  call_rule() : call_rule({}, 1) {}
  call_rule(score_rule const& rule, std::int32_t k_dim)
      : strata::detail::scorer<float>(rule, k_dim), fragments(*this) {}
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
