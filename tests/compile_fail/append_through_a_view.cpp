// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: (invalid conversion from .const std::byte\*|no matching function for call to .*encode)
#include <strata/strata.hpp>

using codec = strata::f32_codec;

// What a layer reads is not to be written, its own new tokens included.
void append(strata::kv_view<codec> const& view, strata::writable_blocks const& blocks,
            float const* head) {
#ifdef STRATA_SHOULD_FAIL
  codec::encode(head, view.k_dim, view.k.at(0, 0, 0), nullptr);
#else
  codec::encode(head, view.k_dim, blocks.at(0, 0, 0), nullptr);
#endif
}
