// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a prompt costs at the very least: the roof under which the time to its first token stands.
// From the last layer that keeps K or V on, only the row that wants logits goes on, so that a plan
// whose last leader is low computes less; those that keep no K and V do not project them either.
#pragma once

#include <cstdint>

#include <strata/cache/footprint.hpp>
#include <strata/plan.hpp>

#include "config.hpp"
#include "serving.hpp"
#include "step_bytes.hpp"

namespace lm {

namespace detail {

/// Keys that all queries of a prompt see, each its own and those before it; the last one `last`.
inline double seen_keys(double tokens, double last) {
  return last * (last + 1) / 2 + (tokens - last) * last;
}

}  // namespace detail

/// Floating-point operations of a prompt of one sequence whose last token wants logits: a
/// multiply-add counts two, what is not one of a product or of attention counts none.
inline double prompt_flops(strata::route_plan const& plan, model_config const& c,
                           std::int32_t tokens) {
  auto const n = static_cast<double>(tokens), dim = static_cast<double>(c.dim);
  auto const q_dim = static_cast<double>(c.q_dim()), kv_dim = static_cast<double>(c.kv_dim());
  auto const last_sees = detail::keys_in_window(c, n);
  double products = 0;  // multiply-adds
  for (strata::layer_id l{0}; l.index < c.layers; ++l.index) {
    bool const all_rows = l.index < plan.tail_begin;
    auto const rows = all_rows ? n : 1;
    products += rows * dim * (2 * q_dim + 3 * static_cast<double>(c.mlp));
    products += n * dim * kv_dim * ((plan[l].k.stored ? 1 : 0) + (plan[l].v.stored ? 1 : 0));
    products += 2 * q_dim * (all_rows ? detail::seen_keys(n, last_sees) : last_sees);
  }
  products += dim * static_cast<double>(c.vocab);
  return 2 * products;
}

/// Bytes that it reads and writes: the weights once, and K and V where they are kept.
inline double prompt_bytes(strata::route_plan const& plan, model_config const& c,
                           std::int64_t weight_bytes_each, cache_codec codec, std::int32_t tokens) {
  auto const token = with_codecs(codec, [&]<class K, class V>(K, V) {
    return strata::bytes_per_token<K, V>(plan, c.classes());
  });
  return step_weight_bytes(plan, c, 1, weight_bytes_each) + static_cast<double>(token) * tokens;
}

}  // namespace lm
