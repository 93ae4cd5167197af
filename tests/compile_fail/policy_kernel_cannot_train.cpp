// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: the fourth policy must compute gradients
#include <strata/strata.hpp>

/// The reference attention, of which only what is named can be called.
struct serving_attention : private strata::reference_attention {
  using strata::reference_attention::combine;
  using strata::reference_attention::partial;
  using strata::reference_attention::workspace_bytes;
#ifndef STRATA_SHOULD_FAIL
  using strata::reference_attention::backward;
  using strata::reference_attention::backward_workspace_bytes;
#endif
};

template struct strata::model_policy<strata::random_previous<>, strata::grouped_map<4, 2>,
                                     strata::contiguous_storage<strata::f32_codec>,
                                     serving_attention>;
