// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: a policy's check must be
#include <strata/strata.hpp>

struct first_layers_only {
  std::int32_t layers = 4;
  constexpr std::int32_t num_layers() const noexcept { return layers; }
  constexpr strata::layer_id source(strata::layer_id) const noexcept { return {0}; }
#ifdef STRATA_SHOULD_FAIL
  constexpr strata::status check() const {  // not noexcept: no map's check
#else
  constexpr strata::status check() const noexcept {
#endif
    return layers < 100 ? strata::status{} : strata::status{strata::errc::unsupported};
  }
};

auto const plan = strata::make_plan(first_layers_only{});
