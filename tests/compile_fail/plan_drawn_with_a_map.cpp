// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: make_plan with a draw_key needs a routing_sampler.*fixed_route
#include <strata/strata.hpp>

strata::result<strata::route_plan> plan_of(strata::kv_classes const& model) {
  auto const map = strata::grouped_map(model.num_layers(), 4);
#ifdef STRATA_SHOULD_FAIL
  return strata::make_plan(map, model, {.seed = 1});
#else
  return strata::make_plan(strata::fixed_route(map), model, {.seed = 1});
#endif
}
