// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/map/layer_map.hpp>

STRATA_NAMESPACE_BEGIN

/// Every layer keeps and reads its own K/V: the ordinary transformer, strategy `full`.
/// Threads: a value without hidden state; any number ask it at the same time.
template <std::int32_t NumLayers = dynamic>
class identity_map {
 public:
  constexpr identity_map() noexcept = default;
  constexpr explicit identity_map(std::int32_t num_layers) noexcept
    requires(NumLayers == dynamic)
      : num_layers_(num_layers) {}

  constexpr std::int32_t num_layers() const noexcept { return num_layers_.value(); }
  constexpr layer_id source(layer_id layer) const noexcept { return layer; }

 private:
  [[no_unique_address]] detail::extent<NumLayers> num_layers_;
};

identity_map(std::int32_t) -> identity_map<dynamic>;

STRATA_NAMESPACE_END
