// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: make_plan needs a layer_map
#include <strata/strata.hpp>

#ifdef STRATA_SHOULD_FAIL
#define NOEXCEPT
#else
#define NOEXCEPT noexcept
#endif

struct first_layer_only {
  constexpr std::int32_t num_layers() const NOEXCEPT { return 4; }
  constexpr strata::layer_id source(strata::layer_id) const NOEXCEPT { return {0}; }
};

auto const plan =
    strata::make_plan(strata::identity_map(4), first_layer_only{}, strata::kv_classes::uniform(4));
