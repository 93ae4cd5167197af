// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The layers that naive models of a storage are held beside: five of one number each, two of them
// with a window.
#pragma once

#include <cstdint>
#include <vector>

#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>

namespace support::windowed {

inline constexpr std::int32_t window = 7;

/// Layers 1 and 3 have the window; a row is one number.
inline strata::kv_classes classes() {
  strata::layer_kind full, sliding;
  full.kv = sliding.kv = {.kv_heads = 1, .k_dim = 1, .v_dim = 1};
  sliding.window = window;
  strata::layer_kind const layers[] = {full, sliding, full, sliding, full};
  return *strata::kv_classes::make(layers);
}

inline strata::route_plan plan_of(std::vector<std::int32_t> const& k,
                                  std::vector<std::int32_t> const& v) {
  return *make_plan(*strata::table_map::make(k), *strata::table_map::make(v), classes());
}

inline bool stores(strata::route_plan const& plan, bool is_k, std::int32_t l) {
  return is_k ? plan[strata::layer_id{l}].k.stored : plan[strata::layer_id{l}].v.stored;
}

}  // namespace support::windowed
