// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <bit>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/ids.hpp>

STRATA_NAMESPACE_BEGIN

/// A set of layers, one bit each.
/// Threads: a value without hidden state; any number ask it at the same time.
class layer_mask {
 public:
  constexpr void insert(layer_id layer) noexcept { word(layer) |= bit(layer); }
  constexpr void toggle(layer_id layer) noexcept { word(layer) ^= bit(layer); }
  constexpr bool contains(layer_id layer) const noexcept {
    return (words_[layer.index / 64] & bit(layer)) != 0;
  }

  /// The highest member at or below `layer`, or no_layer.
  constexpr layer_id highest_up_to(layer_id layer) const noexcept {
    auto index = layer.index / 64;
    auto const shift = 63 - layer.index % 64;
    auto bits = words_[index] << shift >> shift;
    while (bits == 0 && index > 0) bits = words_[--index];
    return bits == 0 ? no_layer : layer_id{index * 64 + 63 - std::countl_zero(bits)};
  }

  constexpr std::int32_t size() const noexcept {
    std::int32_t count = 0;
    for (auto const w : words_) count += std::popcount(w);
    return count;
  }

  friend constexpr bool operator==(layer_mask const&, layer_mask const&) noexcept = default;

 private:
  static constexpr std::uint64_t bit(layer_id layer) noexcept {
    return std::uint64_t{1} << (layer.index % 64);
  }
  constexpr std::uint64_t& word(layer_id layer) noexcept { return words_[layer.index / 64]; }

  std::uint64_t words_[max_layers / 64] = {};
};

STRATA_NAMESPACE_END
