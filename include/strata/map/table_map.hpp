// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <span>

#include <strata/map/layer_map.hpp>

STRATA_NAMESPACE_BEGIN

/// One source per layer, chosen at run time and kept inline (260 bytes): what strategy strings
/// become, and what any other map converts to.
/// Threads: a value without hidden state; any number ask it at the same time.
class table_map {
 public:
  constexpr table_map() noexcept = default;

  /// sources[l] is the layer that layer l reads. Refuses what is not a layer of this model; the
  /// other laws are for `check`.
  static constexpr result<table_map> make(std::span<std::int32_t const> sources) noexcept {
    auto const count = static_cast<std::int64_t>(sources.size());
    if (count > max_layers) return status{errc::too_many_layers, no_layer, count, max_layers};
    table_map map;
    for (auto const source : sources) {
      if (source < 0 || source >= count)
        return status{errc::source_out_of_range, {map.num_layers_}, source, count};
      map.append({source});
    }
    return map;
  }

  /// The same answers as another map, which has passed `check`. A layer without K/V, whose answer
  /// means nothing, is sent to itself.
  template <layer_map M>
  static constexpr table_map from(M const& map) noexcept {
    table_map table;
    for (layer_id l{0}; map.num_layers() > l.index; ++l.index) {
      auto const source = map.source(l);
      table.append(source.valid() && source <= l ? source : l);
    }
    return table;
  }

  constexpr std::int32_t num_layers() const noexcept { return num_layers_; }
  constexpr layer_id source(layer_id layer) const noexcept { return {source_[layer.index]}; }

  friend constexpr bool operator==(table_map const&, table_map const&) noexcept = default;

 private:
  constexpr void append(layer_id source) noexcept {
    source_[num_layers_++] = static_cast<std::uint8_t>(source.index);
  }

  std::uint8_t source_[max_layers] = {};
  std::int32_t num_layers_ = 0;
};

STRATA_NAMESPACE_END
