// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: the first policy must be a routing_sampler
#include <strata/strata.hpp>

#ifdef STRATA_SHOULD_FAIL
using sampler = strata::grouped_map<4, 2>;  // a map says nothing about training
#else
using sampler = strata::fixed_route<strata::grouped_map<4, 2>>;
#endif

template struct strata::model_policy<sampler, strata::grouped_map<4, 2>,
                                     strata::contiguous_storage<strata::f32_codec>,
                                     strata::reference_attention>;
