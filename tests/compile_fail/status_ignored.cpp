// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: (unused-result|nodiscard)
#include <strata/strata.hpp>

void start(strata::leader_set const& map) {
#ifdef STRATA_SHOULD_FAIL
  strata::check(map);
#else
  static_cast<void>(strata::check(map));
#endif
}
