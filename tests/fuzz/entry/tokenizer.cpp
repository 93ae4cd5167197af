// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "fuzz/tokenizer_target.hpp"

#include "fuzz/entry/entry.hpp"

STRATA_FUZZ_ENTRY(fuzz::tokenizer)
