// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/map/layer_map.hpp>
#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// Trains with the map that will serve: no randomness. With `grouped_map` this is CLA@K. Routing
/// `cla:K`. Plans the same rows as the map itself (law 6).
template <layer_map Map>
struct fixed_route {
  Map map = {};

  constexpr fixed_route() noexcept = default;
  constexpr explicit fixed_route(Map m) noexcept : map(m) {}

  constexpr layer_id operator()(candidates c, draw_key) const noexcept {
    return map.source(c.reader());
  }

  constexpr status check(kv_classes const& classes) const noexcept {
    if (auto const s = detail::check_layer_count(map.num_layers(), classes); !s.ok()) return s;
    return detail::check_parameters(map);
  }
};

STRATA_NAMESPACE_END
