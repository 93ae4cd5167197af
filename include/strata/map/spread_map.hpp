// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/map/layer_map.hpp>

STRATA_NAMESPACE_BEGIN

/// `leaders` leaders, spread evenly: leader i is floor(i * num_layers / leaders). Any retention,
/// not only 1/k. Strategy `spread:N`.
/// Threads: a value without hidden state; any number ask it at the same time.
class spread_map {
 public:
  constexpr spread_map() noexcept = default;
  constexpr spread_map(std::int32_t num_layers, std::int32_t leaders) noexcept
      : num_layers_(num_layers), leaders_(leaders) {}

  constexpr std::int32_t num_layers() const noexcept { return num_layers_; }
  constexpr layer_id source(layer_id layer) const noexcept {
    if (num_layers_ < 1) return no_layer;
    // The last i with floor(i L / N) <= l, that is with i L < (l + 1) N.
    auto const last = ((std::int64_t{layer.index} + 1) * leaders_ - 1) / num_layers_;
    return {static_cast<std::int32_t>(last * num_layers_ / (leaders_ < 1 ? 1 : leaders_))};
  }

  constexpr status check() const noexcept {
    if (leaders_ < 1) return {errc::value_too_small, no_layer, leaders_, 1};
    if (leaders_ > num_layers_) return {errc::value_too_large, no_layer, leaders_, num_layers_};
    return {};
  }

 private:
  std::int32_t num_layers_ = 0;
  std::int32_t leaders_ = 0;
};

STRATA_NAMESPACE_END
