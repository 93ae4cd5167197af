// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/routing/probability.hpp>
#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// R-CLA (arXiv:2604.22782, section 3.2): with self_probability a layer reads itself, else a layer
/// drawn uniformly from all before it. Routing `rcla:P`.
template <probability P = probability_schedule>
struct random_previous {
  P self_probability = {};

  constexpr random_previous() noexcept = default;
  constexpr explicit random_previous(P self) noexcept : self_probability(self) {}

  constexpr layer_id operator()(candidates c, draw_key key) const noexcept {
    auto const words = detail::words_of(c, key);
    if (c.preceding() == 0 || coin(words, self_probability(c.reader(), key))) return c.reader();
    return c[pick(words, c.preceding())];
  }

  constexpr status check() const noexcept { return detail::check_parameters(self_probability); }
};

random_previous(double) -> random_previous<probability_schedule>;

STRATA_NAMESPACE_END
