// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/map/layer_map.hpp>

STRATA_NAMESPACE_BEGIN

/// Groups of `group_size` layers; the first of each leads and the last group may be short: strategy
/// `every:K`, CLA@K. ceil(num_layers / group_size) leaders.
///
///     constexpr grouped_map<36, 4> fixed;     // numbers in the type: provable with static_assert
///     grouped_map chosen(36, 4);              // numbers at run time
///
/// Threads: a value without hidden state; any number ask it at the same time.
template <std::int32_t NumLayers = dynamic, std::int32_t GroupSize = dynamic>
  requires((NumLayers == dynamic) == (GroupSize == dynamic))
class grouped_map {
 public:
  constexpr grouped_map() noexcept = default;
  constexpr grouped_map(std::int32_t num_layers, std::int32_t group_size) noexcept
    requires(NumLayers == dynamic && GroupSize == dynamic)
      : num_layers_(num_layers), group_size_(group_size) {}

  constexpr std::int32_t num_layers() const noexcept { return num_layers_.value(); }
  constexpr std::int32_t group_size() const noexcept { return group_size_.value(); }

  constexpr layer_id source(layer_id layer) const noexcept {
    return group_size() < 1 ? no_layer : layer_id{layer.index - layer.index % group_size()};
  }

  constexpr status check() const noexcept {
    if (group_size() < 1) return {errc::value_too_small, no_layer, group_size(), 1};
    return {};
  }

 private:
  [[no_unique_address]] detail::extent<NumLayers, 0> num_layers_;
  [[no_unique_address]] detail::extent<GroupSize, 1> group_size_;
};

grouped_map(std::int32_t, std::int32_t) -> grouped_map<dynamic, dynamic>;

STRATA_NAMESPACE_END
