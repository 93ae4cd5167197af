// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: m\.source\(l\)
#include <strata/strata.hpp>

struct first_layer_only {
  constexpr std::int32_t num_layers() const noexcept { return 4; }
#ifndef STRATA_SHOULD_FAIL
  constexpr strata::layer_id source(strata::layer_id) const noexcept { return {0}; }
#endif
};

auto const plan = strata::make_plan(first_layer_only{});
