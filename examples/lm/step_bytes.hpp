// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a decode step reads from memory at the very least: the roof under which its time stands.
#pragma once

#include <algorithm>
#include <cstdint>

#include <strata/cache/footprint.hpp>
#include <strata/plan.hpp>

#include "config.hpp"
#include "parameters.hpp"
#include "serving.hpp"

namespace lm {

namespace detail {

/// Of `keys` that there are, those that a query sees.
inline double keys_in_window(model_config const& c, double keys) {
  return c.window > 0 ? std::min<double>(keys, c.window) : keys;
}

}  // namespace detail

/// Bytes of the weights that a step reads, each once: all but the K and V projections of layers that
/// keep none, and of an embedding that is not the output projection, too, only a row per sequence.
inline double step_weight_bytes(strata::route_plan const& plan, model_config const& c,
                                std::int32_t batch, std::int64_t bytes_per_weight) {
  std::int64_t unread = 0;
  auto const projection = std::int64_t{c.dim} * c.kv_dim();
  for (strata::layer_id l{0}; l.index < c.layers; ++l.index) {
    if (!plan[l].k.stored) unread += projection + (c.qk_norm ? c.head_dim : 0);
    if (!plan[l].v.stored) unread += projection;
  }
  if (!c.tied) unread += (std::int64_t{c.vocab} - batch) * c.dim;
  return static_cast<double>((c.parameter_count() - unread) * bytes_per_weight);
}

/// Bytes of K and V that attention reads, `keys` tokens of each sequence by every layer: those that
/// share a cache do so one after another.
inline double step_kv_bytes(model_config const& c, cache_options const& cache, double keys) {
  strata::kv_class const kind{c.kv_heads, c.head_dim, c.head_dim};
  auto const token = with_codecs(cache.codec, [&]<class K, class V>(K, V) {
    return strata::k_bytes<K>(kind) + strata::v_bytes<V>(kind);
  });
  return detail::keys_in_window(c, keys) * static_cast<double>(token * c.layers) *
         cache.max_sequences;
}

}  // namespace lm
