// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include <strata/detail/math.hpp>
#include <strata/routing/probability.hpp>
#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// R-CLA that looks back a little only: the other source is drawn uniformly from the nearest Window
/// candidates before the reader.
template <std::int32_t Window, probability P = probability_schedule>
  requires(Window >= 1)
struct random_window {
  P self_probability = {};

  constexpr random_window() noexcept = default;
  constexpr explicit random_window(P self) noexcept : self_probability(self) {}

  constexpr layer_id operator()(candidates c, draw_key key) const noexcept {
    auto const words = detail::words_of(c, key);
    if (c.preceding() == 0 || coin(words, self_probability(c.reader(), key))) return c.reader();
    auto const reach = detail::smaller(Window, c.preceding());
    return c[c.preceding() - reach + pick(words, reach)];
  }

  constexpr status check() const noexcept { return detail::check_parameters(self_probability); }
};

STRATA_NAMESPACE_END
