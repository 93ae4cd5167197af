// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "kernel_instances.hpp"

STRATA_TEST_CALLS(, strata::kv_view<strata::int4_codec>)
STRATA_TEST_CALLS(, strata::kv_view<strata::rotated_codec<strata::int4_codec>, strata::int4_codec>)
