// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <span>

#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// Replays a route that was logged: one source per layer, as integers, for instance from a trainer
/// in another language. Unlike a map, it may hold chains. Kept inline (1 KB).
class recorded_route {
 public:
  constexpr recorded_route() noexcept = default;
  constexpr explicit recorded_route(std::span<std::int32_t const> sources) noexcept
      : num_layers_(static_cast<std::int32_t>(sources.size())) {
    for (std::int32_t l = 0; l < num_layers_ && l < max_layers; ++l) {
      source_[l] = {sources[static_cast<std::size_t>(l)]};
    }
  }

  constexpr std::int32_t num_layers() const noexcept { return num_layers_; }
  constexpr layer_id operator()(candidates c, draw_key) const noexcept {
    return c.reader().index < num_layers_ ? source_[c.reader().index] : no_layer;
  }

  constexpr status check(kv_classes const& classes) const noexcept {
    if (num_layers_ > max_layers) return {errc::too_many_layers, no_layer, num_layers_, max_layers};
    return detail::check_layer_count(num_layers_, classes);
  }

 private:
  layer_id source_[max_layers] = {};
  std::int32_t num_layers_ = 0;
};

STRATA_NAMESPACE_END
