// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "kernel_instances.hpp"

STRATA_TEST_CALLS(, strata::kv_view<strata::fp8_codec, strata::bf16_codec>)
STRATA_TEST_CALLS(, strata::kv_view<strata::int8_codec, strata::int4_codec>)
