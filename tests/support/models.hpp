// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Models that properties are checked on: every way in which layers of one model may differ.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <strata/geometry.hpp>

namespace support {

struct model {
  std::string name;
  std::vector<strata::layer_kind> layers;

  strata::kv_classes classes() const { return *strata::kv_classes::make(layers); }
  std::int32_t num_layers() const { return static_cast<std::int32_t>(layers.size()); }
};

inline strata::layer_kind full_attention() { return {}; }

inline strata::layer_kind sliding_window(std::int32_t window) {
  strata::layer_kind kind;
  kind.window = window;
  return kind;
}

/// Gemma's local layers turn their keys with another base, so they are a KV class of their own.
inline strata::layer_kind local_attention() {
  auto kind = sliding_window(512);
  kind.kv.rope.theta = 1e6;
  return kind;
}

inline strata::layer_kind linear_attention() {
  strata::layer_kind kind;
  kind.has_kv = false;
  return kind;
}

inline strata::layer_kind on_stage(std::int32_t stage) {
  strata::layer_kind kind;
  kind.stage = stage;
  return kind;
}

/// `num_layers` layers that repeat `period`.
inline model repeated(std::string name, std::int32_t num_layers,
                      std::vector<strata::layer_kind> const& period) {
  model m{std::move(name), {}};
  for (std::int32_t l = 0; l < num_layers; ++l)
    m.layers.push_back(period[static_cast<std::size_t>(l) % period.size()]);
  return m;
}

inline model uniform_model(std::int32_t num_layers) {
  return repeated("uniform", num_layers, {full_attention()});
}

/// Five local layers, then a global one.
inline model gemma_like(std::int32_t num_layers) {
  auto const local = local_attention();
  return repeated("5 local : 1 global", num_layers,
                  {local, local, local, local, local, full_attention()});
}

/// Windows differ, the KV class does not: training may read what serving may not.
inline model mixed_windows(std::int32_t num_layers) {
  return repeated("windows 512, all, 64", num_layers,
                  {sliding_window(512), full_attention(), sliding_window(64)});
}

/// Linear attention with a full layer after every three; the bottom and (where num_layers is no
/// multiple of 4) the top are linear.
inline model linear_hybrid(std::int32_t num_layers) {
  auto const linear = linear_attention();
  return repeated("3 linear : 1 full", num_layers, {linear, linear, linear, full_attention()});
}

inline model two_stages(std::int32_t num_layers) {
  model m{"two pipeline stages", {}};
  for (std::int32_t l = 0; l < num_layers; ++l) m.layers.push_back(on_stage(2 * l / num_layers));
  return m;
}

/// Everything at once, in no regular order.
inline model crazy_quilt() {
  auto local_later = local_attention();
  local_later.stage = 1;
  auto small_later = sliding_window(64);
  small_later.stage = 1;
  return {
      "crazy quilt",
      {linear_attention(), full_attention(), local_attention(), sliding_window(64),
       full_attention(), linear_attention(), local_attention(), sliding_window(512), on_stage(1),
       local_later, small_later, linear_attention(), on_stage(1), local_later, linear_attention()}};
}

inline std::vector<model> all_models() {
  return {uniform_model(1),  uniform_model(2),
          uniform_model(12), gemma_like(14),
          mixed_windows(10), linear_hybrid(12),
          linear_hybrid(11), two_stages(9),
          crazy_quilt(),     uniform_model(strata::max_layers)};
}

}  // namespace support
