// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: the second policy must be a layer_map
#include <strata/strata.hpp>

struct every_second {
#ifdef STRATA_SHOULD_FAIL
  constexpr int source(strata::layer_id l) const noexcept { return l.index / 2 * 2; }
#else
  constexpr strata::layer_id source(strata::layer_id l) const noexcept { return {l.index / 2 * 2}; }
#endif
  constexpr std::int32_t num_layers() const noexcept { return 4; }
};

template struct strata::model_policy<strata::random_previous<>, every_second,
                                     strata::contiguous_storage<strata::f32_codec>,
                                     strata::reference_attention>;
