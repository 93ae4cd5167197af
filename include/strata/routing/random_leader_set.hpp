// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include <strata/routing/probability.hpp>
#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// Draws from the family of maps that eq. 3.2 serves: a retention r out of a list, once for the
/// pass; then each layer leads with probability r; then every layer reads the nearest leader of its
/// class (eq. 3.2 of arXiv:2604.22782). The first layer of a class always leads. Routing
/// `sets:R1,R2,...`.
class random_leader_set {
 public:
  static constexpr std::int32_t max_retentions = 16;

  constexpr random_leader_set() noexcept = default;
  constexpr explicit random_leader_set(std::span<double const> retentions) noexcept
      : count_(static_cast<std::int32_t>(retentions.size())) {
    for (std::int32_t i = 0; i < count_ && i < max_retentions; ++i)
      retention_[i] = retentions[static_cast<std::size_t>(i)];
  }
  constexpr random_leader_set(std::initializer_list<double> retentions) noexcept
      : random_leader_set(std::span(retentions.begin(), retentions.size())) {}

  constexpr layer_id operator()(candidates c, draw_key key) const noexcept {
    auto const retention = retention_[pick(draw_words(key, whole_model), count_)];
    for (auto i = c.preceding(); i > 0; --i)
      if (coin(draw_words(key, c[i]), retention)) return c[i];
    return c.first();
  }

  constexpr status check() const noexcept {
    if (count_ < 1) return {errc::value_too_small, no_layer, count_, 1};
    if (count_ > max_retentions) return {errc::value_too_large, no_layer, count_, max_retentions};
    for (std::int32_t i = 0; i < count_; ++i)
      if (auto const s = probability_schedule(retention_[i]).check(); !s.ok()) return s;
    return {};
  }

 private:
  double retention_[max_retentions] = {1};
  std::int32_t count_ = 1;
};

STRATA_NAMESPACE_END
