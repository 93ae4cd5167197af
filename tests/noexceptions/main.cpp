// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// For engines that ban exceptions: everything is reachable without them.
#include <array>

#include <strata/strata.hpp>

#if STRATA_HAS_EXCEPTIONS
#error "this file is about -fno-exceptions"
#endif

int main() {
  auto const table = strata::table_map::make(std::array{0, 0, 2, 2});
  if (!table.ok()) return 1;
  auto const served = strata::make_plan(*table);
  auto const trained = strata::make_plan(strata::fixed_route(*table),
                                         strata::kv_classes::uniform(4), strata::draw_key{});
  if (!served.ok() || !trained.ok() || !(*served == *trained)) return 2;

  auto const refused = strata::make_plan(strata::leader_set(4, {1}));
  return refused.state().layer == strata::layer_id{0} ? 0 : 3;
}
