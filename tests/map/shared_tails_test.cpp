// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// num_kv_shared_layers, read as transformers' own Gemma models read it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include <strata/map/engine_forms.hpp>

#include "shared_tails.hpp"

TEST_CASE("Gemma: layers read those whose K and V transformers' models give them") {
  strata::layer_kind sliding, full;
  sliding.window = 512;
  for (auto const& tail : shared_tails) {
    CAPTURE(tail.model);
    std::vector<strata::layer_kind> layers;
    for (auto const kind : tail.kinds) layers.push_back(kind == 'f' ? full : sliding);
    auto const classes = *strata::kv_classes::make(layers);
    auto const shared = static_cast<std::int32_t>(tail.sources.size());
    auto const map = strata::forms::from_shared_tail(shared, classes);
    REQUIRE(map.ok());

    std::vector<std::int32_t> expected(layers.size()), sources;
    std::iota(expected.begin(), expected.end(), 0);
    std::ranges::copy(tail.sources, expected.end() - shared);
    for (strata::layer_id l{0}; l.index < classes.num_layers(); ++l.index)
      sources.push_back(map->source(l).index);
    CHECK(sources == expected);
    CHECK(*strata::forms::to_shared_tail(*map, classes) == shared);
  }
}
