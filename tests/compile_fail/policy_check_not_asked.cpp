// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: a policy's check must be
#include <strata/strata.hpp>

// A check that may throw is no policy's check, and must not be passed over.
#ifdef STRATA_SHOULD_FAIL
#define NOEXCEPT
#else
#define NOEXCEPT noexcept
#endif

struct first_layers_only {
  std::int32_t layers = 4;
  constexpr std::int32_t num_layers() const noexcept { return layers; }
  constexpr strata::layer_id source(strata::layer_id) const noexcept { return {0}; }
  constexpr strata::status check() const NOEXCEPT {
    return {layers < 100 ? strata::errc::ok : strata::errc::too_many_layers};
  }
};

auto const plan = strata::make_plan(first_layers_only{});
