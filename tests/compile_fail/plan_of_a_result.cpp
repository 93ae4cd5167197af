// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: make_plan was given a result
#include <strata/strata.hpp>

strata::result<strata::route_plan> plan_of(strata::kv_classes const& model) {
  auto const map = strata::parse_strategy("every:4", model);
#ifdef STRATA_SHOULD_FAIL
  return strata::make_plan(map, model);
#else
  if (!map.ok()) return map.state();
  return strata::make_plan(*map, model);
#endif
}
