// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: a policy's check must be
#include <strata/strata.hpp>

class self_below {
 public:
  constexpr strata::layer_id operator()(strata::candidates c, strata::draw_key) const noexcept {
    return c.reader();
  }

#ifndef STRATA_SHOULD_FAIL
  constexpr strata::status check(strata::kv_classes const&) const noexcept { return {}; }
#else
 private:  // nobody can ask it
  constexpr strata::status check(strata::kv_classes const&) const noexcept { return {}; }
#endif
};

auto const plan = strata::make_plan(self_below{}, strata::kv_classes::uniform(4), {});
