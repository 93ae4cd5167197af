// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: (could not convert|no viable conversion).*slot_id
#include <strata/strata.hpp>

strata::slot_id slot_of(strata::route const& k) {
#ifdef STRATA_SHOULD_FAIL
  return k.source;
#else
  return k.slot;
#endif
}
