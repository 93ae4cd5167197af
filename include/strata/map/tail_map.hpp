// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/map/layer_map.hpp>

STRATA_NAMESPACE_BEGIN

/// The last `tail` layers keep nothing and read the last layer before them (Gemma 3n and 4, YOCO,
/// AFM; Hugging Face's num_kv_shared_layers). The strategy string `tail:N` finds that layer per KV
/// class; this map is the form for models whose layers are all alike.
/// Threads: a value without hidden state; any number ask it at the same time.
class tail_map {
 public:
  constexpr tail_map() noexcept = default;
  constexpr tail_map(std::int32_t num_layers, std::int32_t tail) noexcept
      : num_layers_(num_layers), tail_(tail) {}

  constexpr std::int32_t num_layers() const noexcept { return num_layers_; }
  constexpr layer_id source(layer_id layer) const noexcept {
    auto const last_leader = num_layers_ - tail_ - 1;
    return layer.index <= last_leader ? layer : layer_id{last_leader};
  }

  constexpr status check() const noexcept {
    if (tail_ < 0) return {errc::value_too_small, no_layer, tail_, 0};
    if (tail_ >= num_layers_) return {errc::value_too_large, no_layer, tail_, num_layers_ - 1};
    return {};
  }

 private:
  std::int32_t num_layers_ = 0;
  std::int32_t tail_ = 0;
};

STRATA_NAMESPACE_END
