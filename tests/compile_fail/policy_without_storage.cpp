// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: the third policy must be a cache_storage
#include <strata/strata.hpp>

// A view has codecs, but nobody can open a sequence in it.
#ifdef STRATA_SHOULD_FAIL
using storage = strata::kv_view<strata::f32_codec>;
#else
using storage = strata::paged_storage<strata::f32_codec>;
#endif

using experiment = strata::model_policy<strata::random_previous<>, strata::grouped_map<4, 2>,
                                        storage, strata::reference_attention>;
constexpr auto size = sizeof(experiment);
