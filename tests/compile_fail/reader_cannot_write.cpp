// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: (could not convert|no viable conversion).*basic_tensor_blocks<
#include <strata/strata.hpp>

#ifdef STRATA_SHOULD_FAIL
using given = strata::tensor_blocks;
#else
using given = strata::writable_blocks;
#endif

strata::writable_blocks to_append_to(given blocks) { return blocks; }
