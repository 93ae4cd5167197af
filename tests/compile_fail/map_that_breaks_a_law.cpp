// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: static.assert.*failed.*layer 0 must lead
#include <strata/strata.hpp>

#ifdef STRATA_SHOULD_FAIL
constexpr strata::leader_set map(4, {1});
#else
constexpr strata::leader_set map(4, {0, 1});
#endif

static_assert(strata::check(map).ok(), "layer 0 must lead");
