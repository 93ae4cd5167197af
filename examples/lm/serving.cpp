// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serving.hpp"

#include <utility>

#include <strata/attention/cpu/attention.hpp>
#include <strata/cache/contiguous_storage.hpp>

#include "stack_server.hpp"

namespace lm {
namespace {

template <class Codec>
std::unique_ptr<server<float>> make_with(parameters<float> const& model, strata::thread_pool& pool,
                                         strata::route_plan const& plan,
                                         cache_options const& options,
                                         strata::borrowed_memory memory) {
  using storage = strata::contiguous_storage<Codec>;
  auto made = storage::make(
      model.config().classes(),
      strata::contiguous_options::for_plan(plan, options.max_sequences, options.max_tokens),
      memory);
  require(made.state(), "the K/V cache");
  return std::make_unique<stack_server<float, storage, strata::cpu::attention>>(
      model, *std::move(made), pool);
}

}  // namespace

std::unique_ptr<server<float>> make_server(parameters<float> const& model,
                                           strata::thread_pool& pool,
                                           strata::route_plan const& plan,
                                           cache_options const& options,
                                           strata::borrowed_memory memory) {
  bool const borrows = memory.k.data() != nullptr;
  require_fit(
      borrows ? table_bytes(model.config(), options) : server_bytes(plan, model.config(), options),
      available_memory(), "serving", "this machine");
  return with_codec(options.codec, [&]<class Codec>(Codec) {
    return make_with<Codec>(model, pool, plan, options, memory);
  });
}

}  // namespace lm
