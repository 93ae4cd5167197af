// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cmath>
#include <cstdint>

#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// The keys that one call reads of one (sequence, KV head), and where they stand.
struct key_range {
  std::int32_t begin = 0;
  std::int32_t end = 0;
  std::int32_t end_position = 0;            // one past the position of the sequence's last key
  std::int32_t const* positions = nullptr;  // null: token t stands at position t

  STRATA_HOST_DEVICE constexpr std::int32_t position(std::int32_t token) const noexcept {
    return positions == nullptr ? token : positions[token];
  }
};

template <class T, class View>
STRATA_HOST_DEVICE constexpr key_range keys_of(query_rows<T> const& q, View const& view,
                                               std::int32_t seq, std::int32_t kv_head) noexcept {
  auto const length = view.length(seq, kv_head);
  key_range keys;
  keys.begin = static_cast<std::int32_t>(smaller<std::int64_t>(q.key_begin, length));
  keys.end = static_cast<std::int32_t>(smaller<std::int64_t>(q.key_end, length));
  keys.positions = view.positions(seq, kv_head);
  keys.end_position = length < 1 ? 0 : keys.position(length - 1) + 1;
  return keys;
}

/// The first key that stands after `position`. Keys ascend.
[[gnu::always_inline]] STRATA_HOST_DEVICE constexpr std::int32_t first_after(
    key_range const& keys, std::int64_t position) noexcept {
  auto from = keys.begin, to = keys.end;
  if (from < to && keys.position(to - 1) <= position) return to;  // as decode finds it
  while (from < to) {
    auto const middle = from + (to - from) / 2;
    if (keys.position(middle) > position)
      to = middle;
    else
      from = middle + 1;
  }
  return from;
}

/// From dot product to score, and back through the derivative.
template <class A>
struct scorer {
  A scale;
  A softcap;  // 0: none

  scorer(score_rule const& rule, std::int32_t k_dim) noexcept
      : scale(static_cast<A>(rule.scale > 0 ? rule.scale
                                            : 1 / std::sqrt(static_cast<double>(k_dim)))),
        softcap(static_cast<A>(rule.softcap)) {}

  STRATA_HOST_DEVICE A score(A dot) const noexcept {
    auto const s = scale * dot;
    return softcap > 0 ? softcap * std::tanh(s / softcap) : s;
  }
  /// d score / d dot, given the score.
  STRATA_HOST_DEVICE A slope(A s) const noexcept {
    auto const t = softcap > 0 ? s / softcap : A{0};
    return scale * (1 - t * t);
  }
};

}  // namespace detail

STRATA_NAMESPACE_END
