// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What tests of a device's copy of a step share: a model, and mirrors in the host's memory.
#pragma once

#include <cstdint>

#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/geometry.hpp>
#include <strata/ids.hpp>

#include "support/deferred_device.hpp"
#include "support/host_memory_device.hpp"
#include "support/simt_attention.hpp"

namespace step_mirrors {

using strata::layer_id;
using host_device = support::host_memory_device<support::simt_launcher>;
using mirror_type = strata::cuda::detail::step_mirror_on<host_device>;
/// Nothing happens there before it is waited for.
using late_device = support::deferred_device<support::simt_launcher>;
using late_mirror = strata::cuda::detail::step_mirror_on<late_device>;

constexpr std::int32_t layers = 6, kv_heads = 2, most_tokens = 60;

inline strata::kv_classes const model =
    strata::kv_classes::uniform(layers, {.kv = {.kv_heads = kv_heads, .k_dim = 8, .v_dim = 16}});

/// What an engine whose launches have been enqueued has told the step.
template <class Step>
void mark_stored(Step& step) {
  for (layer_id l{0}; l.index < layers; ++l.index) {
    for (auto const& r : step.k_writers(l)) r.mark_stored();
    for (auto const& r : step.v_writers(l)) r.mark_stored();
  }
}

}  // namespace step_mirrors
