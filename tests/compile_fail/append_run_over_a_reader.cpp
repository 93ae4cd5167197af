// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: (no match for .operator=.|no viable overloaded .=.)
#include <strata/strata.hpp>

using codec = strata::f32_codec;

// A run of one's own cannot be made over the blocks that a follower reads.
void append(strata::kv_view<codec> const& view, strata::writable_blocks const& blocks,
            strata::detail::step_notes& notes, std::uint8_t* stored, float const* head) {
  strata::append_rows to;
#ifdef STRATA_SHOULD_FAIL
  to.blocks = view.k;
#else
  to.blocks = blocks;
#endif
  strata::kv_run<codec>(to, 0, 1, notes, stored).store(0, head);
}
