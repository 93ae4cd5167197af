// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// self_probability: how often a layer reads its own K/V. The paper calls both this and its
// complement p (section 3.4: P(self) = p; table 1 and appendix A: P(cross) = p), so nothing here is
// named p.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>
#include <strata/random.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// A self_probability that may depend on layer and step.
template <class P>
concept probability =
    std::is_trivially_copyable_v<P> && requires(P const p, layer_id l, draw_key k) {
      { p(l, k) } noexcept -> std::same_as<double>;
    };

/// The shipped probability: one number, or a straight line over steps or over depth.
class probability_schedule {
 public:
  constexpr probability_schedule() noexcept = default;
  /// The same for every layer and step. Implicit, so that a sampler can be written `{0.5}`.
  constexpr probability_schedule(double constant) noexcept : first_(constant), last_(constant) {}

  /// `first` up to step `from`, `last` from step `to` on, a straight line between. A jump where
  /// from >= to: `last` holds from step `to` on.
  static constexpr probability_schedule over_steps(double first, double last, std::uint64_t from,
                                                   std::uint64_t to) noexcept {
    probability_schedule schedule(first);
    schedule.last_ = last;
    schedule.from_ = detail::smaller(from, to);
    schedule.to_ = to;
    schedule.axis_ = axis::step;
    return schedule;
  }

  /// `first` at layer 0, `last` at the last layer, a straight line between.
  static constexpr probability_schedule over_depth(double first, double last,
                                                   std::int32_t num_layers) noexcept {
    auto const end = static_cast<std::uint64_t>(detail::larger(num_layers - 1, 0));
    auto schedule = over_steps(first, last, 0, end);
    schedule.axis_ = axis::layer;
    return schedule;
  }

  constexpr double operator()(layer_id layer, draw_key const& key) const noexcept {
    if (axis_ == axis::none) return first_;
    auto const at = axis_ == axis::step ? key.step : static_cast<std::uint64_t>(layer.index);
    if (at >= to_) return last_;
    if (at <= from_) return first_;
    auto const fraction = static_cast<double>(at - from_) / static_cast<double>(to_ - from_);
    return first_ + (last_ - first_) * fraction;
  }

  constexpr status check() const noexcept {
    for (auto const value : {first_, last_}) {
      if (!(value > -1e12 && value < 1e12)) return {errc::probability_not_finite};
      if (value < 0 || value > 1)
        return {errc::not_a_probability, no_layer, static_cast<std::int64_t>(value * 1e6), 1};
    }
    return {};
  }

 private:
  enum class axis : std::int32_t { none, step, layer };

  double first_ = 1;
  double last_ = 1;
  std::uint64_t from_ = 0;
  std::uint64_t to_ = 0;
  axis axis_ = axis::none;
};

STRATA_NAMESPACE_END
