// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every shipped sampler, made to fit a given model, so that laws are checked over all pairs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/routing/coin_to_map.hpp>
#include <strata/routing/fixed_route.hpp>
#include <strata/routing/random_leader_set.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/routing/random_window.hpp>
#include <strata/routing/self_only.hpp>
#include <strata/routing/strategy_mixture.hpp>

#include "models.hpp"
#include "oracle.hpp"

namespace support {

/// Within each KV class every `group_size`-th layer leads; the others read the nearest leader that
/// they may read while serving, and lead themselves where there is none.
inline strata::table_map map_within_classes(model const& m, std::size_t group_size) {
  std::vector<std::int32_t> sources;
  for (std::int32_t l = 0; l < m.num_layers(); ++l) {
    std::int32_t source = l;
    if ((candidates_of(m, l).size() + group_size - 1) % group_size != 0)
      for (std::int32_t j = 0; j < l; ++j)
        if (sources[static_cast<std::size_t>(j)] == j && serves_with(m, l, j)) source = j;
    sources.push_back(source);
  }
  return *strata::table_map::make(sources);
}

/// A sampler of type S whose draws are legal in model m.
template <class S>
struct sampler_for;

template <>
struct sampler_for<strata::self_only> {
  static strata::self_only make(model const&) { return {}; }
};
template <>
struct sampler_for<strata::random_previous<>> {
  static strata::random_previous<> make(model const&) { return strata::random_previous(0.4); }
};
template <>
struct sampler_for<strata::random_window<2>> {
  static auto make(model const&) { return strata::random_window<2>(0.3); }
};
template <>
struct sampler_for<strata::random_leader_set> {
  static strata::random_leader_set make(model const&) { return {1, 0.5, 0.25, 0.1}; }
};
template <>
struct sampler_for<strata::fixed_route<strata::table_map>> {
  static auto make(model const& m) { return strata::fixed_route(map_within_classes(m, 2)); }
};
template <>
struct sampler_for<strata::coin_to_map<strata::table_map>> {
  static auto make(model const& m) { return strata::coin_to_map(map_within_classes(m, 3), 0.5); }
};
template <>
struct sampler_for<strata::strategy_mixture> {
  static strata::strategy_mixture make(model const& m) {
    return {map_within_classes(m, 1), map_within_classes(m, 2), map_within_classes(m, 3)};
  }
};
template <>
struct sampler_for<strata::any_sampler> {
  static strata::any_sampler make(model const&) { return strata::random_previous(0.7); }
};

#define SUPPORT_ALL_SAMPLERS                                              \
  strata::self_only, strata::random_previous<>, strata::random_window<2>, \
      strata::random_leader_set, strata::fixed_route<strata::table_map>,  \
      strata::coin_to_map<strata::table_map>, strata::strategy_mixture, strata::any_sampler

/// The sources of K, -1 for layers without K/V.
inline std::vector<std::int32_t> k_sources(strata::route_plan const& plan) {
  std::vector<std::int32_t> sources;
  for (std::int32_t l = 0; l < plan.num_layers; ++l)
    sources.push_back(plan.layers[l].k.source.index);
  return sources;
}

}  // namespace support
