// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include <strata/map/table_map.hpp>
#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// Draws one of a few maps for the whole pass, each equally likely (name one twice for twice the
/// weight). Routing `mix:S/S/...`. Kept inline: 2.1 KB.
class strategy_mixture {
 public:
  static constexpr std::int32_t max_maps = 8;

  constexpr strategy_mixture() noexcept = default;
  constexpr explicit strategy_mixture(std::span<table_map const> maps) noexcept
      : count_(static_cast<std::int32_t>(maps.size())) {
    for (std::int32_t i = 0; i < count_ && i < max_maps; ++i)
      map_[i] = maps[static_cast<std::size_t>(i)];
  }
  constexpr strategy_mixture(std::initializer_list<table_map> maps) noexcept
      : strategy_mixture(std::span(maps.begin(), maps.size())) {}

  constexpr layer_id operator()(candidates c, draw_key key) const noexcept {
    return map_[pick(draw_words(key, whole_model), count_)].source(c.reader());
  }

  constexpr status check(kv_classes const& classes) const noexcept {
    if (count_ < 1) return {errc::value_too_small, no_layer, count_, 1};
    if (count_ > max_maps) return {errc::value_too_large, no_layer, count_, max_maps};
    for (std::int32_t i = 0; i < count_; ++i)
      if (auto const s = detail::check_layer_count(map_[i].num_layers(), classes); !s.ok())
        return s;
    return {};
  }

 private:
  table_map map_[max_maps] = {};
  std::int32_t count_ = 0;
};

STRATA_NAMESPACE_END
