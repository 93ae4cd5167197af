// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: (s\(c, k\)' does not satisfy|same_as<int, strata::layer_id>)
#include <strata/strata.hpp>

struct always_itself {
#ifdef STRATA_SHOULD_FAIL
  constexpr int operator()(strata::candidates c, strata::draw_key) const noexcept {
    return c.reader().index;
  }
#else
  constexpr strata::layer_id operator()(strata::candidates c, strata::draw_key) const noexcept {
    return c.reader();
  }
#endif
};

auto const plan =
    strata::make_plan(always_itself{}, strata::kv_classes::uniform(4), strata::draw_key{});
