// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: (discards qualifiers|is not marked const)
#include <strata/strata.hpp>

using storage = strata::contiguous_storage<strata::f32_codec>;

// A stack shows its storage to look at; only a step's writers append.
strata::writable_blocks door(strata::stack<storage, strata::reference_attention>& stack,
                             storage& own) {
#ifdef STRATA_SHOULD_FAIL
  return stack.storage().k_blocks({0});
#else
  static_cast<void>(stack.storage().allocated_bytes());
  return own.k_blocks({0});
#endif
}
