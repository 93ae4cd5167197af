// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include <strata/map/layer_map.hpp>

namespace support {

template <class Map>
std::vector<std::int32_t> sources(Map const& map) {
  std::vector<std::int32_t> answer;
  for (std::int32_t l = 0; l < map.num_layers(); ++l) answer.push_back(map.source({l}).index);
  return answer;
}

/// Eq. 3.2, read out loud: a leader reads itself, any other layer the greatest leader below it.
inline std::vector<std::int32_t> nearest_leaders(std::int32_t num_layers,
                                                 std::set<std::int32_t> const& leaders) {
  std::vector<std::int32_t> answer;
  for (std::int32_t l = 0; l < num_layers; ++l) {
    std::int32_t nearest = -1;
    for (auto const j : leaders)
      if (j <= l && j > nearest) nearest = j;
    answer.push_back(nearest);
  }
  return answer;
}

/// Whether a map passes its check and is eq. 3.2 of exactly these leaders.
template <class Map>
bool is_nearest_leader_map(Map const& map, std::int32_t num_layers,
                           std::set<std::int32_t> const& leaders) {
  return strata::check(map).ok() && map.num_layers() == num_layers &&
         strata::num_leaders(map) == static_cast<std::int32_t>(leaders.size()) &&
         sources(map) == nearest_leaders(num_layers, leaders);
}

}  // namespace support
