// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serving_with.hpp"

namespace lm {

std::unique_ptr<server<float>> make_int4_server(served_model<float> const& model,
                                                strata::thread_pool& pool,
                                                strata::route_plan const& plan,
                                                cache_options const& options,
                                                strata::borrowed_memory memory) {
  return with_int4_codecs(options.codec, [&]<class K, class V>(K, V) {
    return make_with<K, V>(model, pool, plan, options, memory);
  });
}

}  // namespace lm
