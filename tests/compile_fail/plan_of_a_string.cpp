// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: make_plan was given a string
#include <strata/strata.hpp>

strata::result<strata::route_plan> plan_of(strata::kv_classes const& model) {
#ifdef STRATA_SHOULD_FAIL
  return strata::make_plan("every:4", model);
#else
  return strata::make_plan(*strata::parse_strategy("every:4", model), model);
#endif
}
