// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serving_with.hpp"

namespace lm {

std::unique_ptr<server<float>> make_server(served_model<float> const& model,
                                           strata::thread_pool& pool,
                                           strata::route_plan const& plan,
                                           cache_options const& options,
                                           strata::borrowed_memory memory) {
  bool const borrows = memory.k.data() != nullptr;
  require_fit(
      borrows ? table_bytes(model.config, options) : server_bytes(plan, model.config, options),
      available_memory(), "serving", "this machine");
  if (has_int4(options.codec)) return make_int4_server(model, pool, plan, options, memory);
  return with_wide_codecs(options.codec, [&]<class K, class V>(K, V) {
    return make_with<K, V>(model, pool, plan, options, memory);
  });
}

}  // namespace lm
