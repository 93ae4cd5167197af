// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A server of one pair of codecs, for the units that are compiled with some of them.
#pragma once

#include <memory>
#include <utility>

#include <strata/attention/cpu/attention.hpp>
#include <strata/cache/contiguous_storage.hpp>

#include "serving.hpp"
#include "stack_server.hpp"

namespace lm {

template <class KCodec, class VCodec>
std::unique_ptr<server<float>> make_with(served_model<float> const& model,
                                         strata::thread_pool& pool, strata::route_plan const& plan,
                                         cache_options const& options,
                                         strata::borrowed_memory memory) {
  using storage = strata::contiguous_storage<KCodec, VCodec>;
  auto made = storage::make(
      model.config.classes(),
      strata::contiguous_options::for_plan(plan, options.max_sequences, options.max_tokens),
      memory);
  require(made.state(), "the K/V cache");
  return std::make_unique<stack_server<float, storage, strata::cpu::attention>>(
      model, *std::move(made), pool);
}

}  // namespace lm
