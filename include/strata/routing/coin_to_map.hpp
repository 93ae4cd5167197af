// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/map/layer_map.hpp>
#include <strata/routing/probability.hpp>
#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// A coin between the layer itself and its source under a map. With `grouped_map` this is RD-CLA@K.
/// Routing `rdcla:K:P`.
template <layer_map Map, probability P = probability_schedule>
struct coin_to_map {
  Map map = {};
  P self_probability = {};

  constexpr coin_to_map() noexcept = default;
  constexpr coin_to_map(Map m, P self) noexcept : map(m), self_probability(self) {}

  constexpr layer_id operator()(candidates c, draw_key key) const noexcept {
    auto const self = coin(detail::words_of(c, key), self_probability(c.reader(), key));
    return self ? c.reader() : map.source(c.reader());
  }

  constexpr status check(kv_classes const& classes) const noexcept {
    if (auto const s = detail::check_layer_count(map.num_layers(), classes); !s.ok()) return s;
    if (auto const s = detail::check_parameters(map); !s.ok()) return s;
    return detail::check_parameters(self_probability);
  }
};

template <layer_map Map>
coin_to_map(Map, double) -> coin_to_map<Map, probability_schedule>;

STRATA_NAMESPACE_END
