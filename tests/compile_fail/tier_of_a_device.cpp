// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: K and V of a device are not the host's to copy
#include <strata/strata.hpp>

struct storage : strata::paged_storage<strata::bf16_codec> {
#ifdef STRATA_SHOULD_FAIL
  static constexpr bool on_device = true;
#endif
};

auto leave(strata::host_tier<>& tier, storage& s, strata::sequence_id id) {
  return tier.offload(s, id);
}
