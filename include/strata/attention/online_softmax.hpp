// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The state of a softmax that has seen some of its keys, and how two states are joined. Shared by
// the host and device kernels.
//
// Edge cases, once and for all:
//   - no key seen, or all masked: max = -inf, sum = 0, lse = -inf, and the output is all zeros
//   - a score of -inf is a masked key: it adds nothing
//   - -inf minus -inf would be NaN: every difference of maxima goes through `decay`, 0 there
//   - a NaN score makes the row NaN; it is not hidden
//   - a score of +inf makes the row NaN, as the plain formula does
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

template <class A>
inline constexpr A minus_infinity = -std::numeric_limits<A>::infinity();

/// Maximum and sum of exp(score - maximum) over the keys seen so far.
template <class A>
struct softmax_state {
  A max = minus_infinity<A>;
  A sum = 0;

  /// exp(from - to), the factor that a sum kept against `from` needs against `to`; 0 where nothing
  /// had been seen.
  STRATA_HOST_DEVICE static A decay(A from, A to) noexcept {
    return from == minus_infinity<A> ? A{0} : std::exp(from - to);
  }

  STRATA_HOST_DEVICE constexpr bool empty() const noexcept { return sum == 0; }

  /// log of the sum of exp(score); -inf when empty.
  STRATA_HOST_DEVICE A lse() const noexcept {
    return empty() ? minus_infinity<A> : max + std::log(sum);
  }

  /// Takes one score. `rescale` is what values summed so far must be multiplied by, `weight` what
  /// the new value counts.
  struct update {
    A rescale, weight;
  };
  STRATA_HOST_DEVICE update add(A score) noexcept {
    if (score == minus_infinity<A>) return {A{1}, A{0}};
    A const new_max = score > max || score != score ? score : max;
    update const u{decay(max, new_max), std::exp(score - new_max)};
    sum = sum * u.rescale + u.weight;
    max = new_max;
    return u;
  }
};

/// The two weights that join outputs normalised over disjoint sets of keys, and the joint lse.
template <class A>
struct merge_weights {
  A a = 0, b = 0, lse = minus_infinity<A>;
};

template <class A>
STRATA_HOST_DEVICE merge_weights<A> weigh(A lse_a, A lse_b) noexcept {
  A const max = lse_a > lse_b || lse_a != lse_a ? lse_a : lse_b;
  A const a = softmax_state<A>::decay(lse_a, max);
  A const b = softmax_state<A>::decay(lse_b, max);
  A const sum = a + b;
  if (sum == 0) return {};  // both empty
  return {a / sum, b / sum, max + std::log(sum)};
}

/// Joins the results of two attention calls over disjoint keys: out_a and lse_a become those of one
/// call over both. `dim` elements. Empty sides count nothing; merging two empty sides leaves zeros.
/// Commutative up to rounding; the order of several merges changes bits, not the bound (law 9),
/// which grows with |lse|: a weight is known to epsilon * |lse|.
template <class T, class A>
STRATA_HOST_DEVICE void merge(T* out_a, A& lse_a, T const* out_b, A lse_b,
                              std::int32_t dim) noexcept {
  auto const w = weigh(lse_a, lse_b);
  for (std::int32_t i = 0; i < dim; ++i)
    out_a[i] = static_cast<T>((w.a == 0 ? A{0} : w.a * static_cast<A>(out_a[i])) +
                              (w.b == 0 ? A{0} : w.b * static_cast<A>(out_b[i])));
  lse_a = w.lse;
}

STRATA_NAMESPACE_END
