// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The layer map: while serving, whose K/V does each layer read? Its laws are checked here.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <strata/config.hpp>
#include <strata/detail/policy.hpp>
#include <strata/geometry.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// A layer map is a small value that answers two questions. Write one like this:
///
///     struct first_layer_only {
///       std::int32_t layers;
///       constexpr std::int32_t num_layers() const noexcept { return layers; }
///       constexpr strata::layer_id source(strata::layer_id) const noexcept { return {0}; }
///     };
///
/// `source(l)` is asked for l in [0, num_layers()). What it must answer is checked by `check`. A
/// map with parameters that can be wrong may add `status check() const noexcept`, which is asked
/// first. Threads: a map is asked by any number at the same time.
template <class M>
concept layer_map = std::is_trivially_copyable_v<M> && requires(M const m, layer_id l) {
  { m.num_layers() } noexcept -> std::same_as<std::int32_t>;
  { m.source(l) } noexcept -> std::same_as<layer_id>;
};

/// As a template argument of a map: the number is known at run time only.
inline constexpr std::int32_t dynamic = -1;

namespace detail {

/// A number that is part of the type, or a member when it is `dynamic`; both read the same. Tag
/// keeps two extents of one class apart, so that empty ones take no room.
template <std::int32_t N, int Tag = 0>
struct extent {
  constexpr extent() noexcept = default;
  static constexpr std::int32_t value() noexcept { return N; }
};

template <int Tag>
struct extent<dynamic, Tag> {
  std::int32_t number = 0;
  constexpr extent() noexcept = default;
  constexpr explicit extent(std::int32_t n) noexcept : number(n) {}
  constexpr std::int32_t value() const noexcept { return number; }
};

template <layer_map M>
constexpr status check_layer(M const& map, kv_classes const& classes, layer_id layer) noexcept {
  auto const source = map.source(layer);
  if (!source.valid()) return {errc::no_leader_before, layer, source.index, 0};
  if (source.index >= map.num_layers())
    return {errc::source_out_of_range, layer, source.index, map.num_layers()};
  if (source > layer) return {errc::source_above_reader, layer, source.index, layer.index};
  if (auto const allowed = classes.readable(layer, source, use::serving); !allowed.ok())
    return allowed;
  if (auto const leader = map.source(source); leader != source)
    return {errc::source_not_a_leader, layer, source.index, leader.index};
  return {};
}

}  // namespace detail

/// Checks law 1: every source exists, is not above its reader, may be read by it, and keeps its own
/// K/V. Names the first layer that breaks it. Layers without K/V are not asked. O(num_layers).
template <layer_map M>
constexpr status check(M const& map, kv_classes const& classes) noexcept {
  if (auto const own = detail::check_parameters(map); !own.ok()) return own;
  if (auto const count = classes.check(); !count.ok()) return count;
  if (map.num_layers() != classes.num_layers())
    return {errc::layer_count_mismatch, no_layer, map.num_layers(), classes.num_layers()};
  for (layer_id layer{0}; map.num_layers() > layer.index; ++layer.index) {
    if (!classes[layer].has_kv) continue;
    if (auto const s = detail::check_layer(map, classes, layer); !s.ok()) return s;
  }
  return {};
}

/// The same for a model whose layers are all alike.
template <layer_map M>
constexpr status check(M const& map) noexcept {
  return check(map, kv_classes::uniform(map.num_layers()));
}

/// The number of layers that keep K/V under a map that passed `check`.
template <layer_map M>
constexpr std::int32_t num_leaders(M const& map, kv_classes const& classes) noexcept {
  std::int32_t count = 0;
  for (layer_id layer{0}; map.num_layers() > layer.index; ++layer.index)
    count += classes[layer].has_kv && map.source(layer) == layer;
  return count;
}
template <layer_map M>
constexpr std::int32_t num_leaders(M const& map) noexcept {
  return num_leaders(map, kv_classes::uniform(map.num_layers()));
}

STRATA_NAMESPACE_END
