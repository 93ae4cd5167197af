// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Index types that do not convert into each other: a layer is a position in the model, a slot is a
// position among the stored tensors, and to confuse the two is the classic bug of a shared cache.
//
// Loops say `n > l.index`: nvcc 13.0 reads `l.index <` in a for statement as the beginning of template
// arguments, because POSIX has a function `index`.
#pragma once

#include <compare>
#include <cstdint>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

/// A layer of the model, counted from 0 at the input.
struct layer_id {
  std::int32_t index = -1;

  STRATA_HOST_DEVICE constexpr bool valid() const noexcept { return index >= 0; }
  friend constexpr auto operator<=>(layer_id, layer_id) noexcept = default;
  friend constexpr bool operator==(layer_id, layer_id) noexcept = default;
};

/// A stored K (or V) tensor: dense over the layers that store one, in ascending layer order.
struct slot_id {
  std::int32_t index = -1;

  STRATA_HOST_DEVICE constexpr bool valid() const noexcept { return index >= 0; }
  friend constexpr auto operator<=>(slot_id, slot_id) noexcept = default;
  friend constexpr bool operator==(slot_id, slot_id) noexcept = default;
};

/// A sequence that a storage holds: what an engine calls a request. Ids of closed sequences are
/// used again.
struct sequence_id {
  std::int32_t index = -1;

  STRATA_HOST_DEVICE constexpr bool valid() const noexcept { return index >= 0; }
  friend constexpr auto operator<=>(sequence_id, sequence_id) noexcept = default;
  friend constexpr bool operator==(sequence_id, sequence_id) noexcept = default;
};

inline constexpr layer_id no_layer{};
inline constexpr slot_id no_slot{};
inline constexpr sequence_id no_sequence{};

/// The deepest model that plans, tables and masks have room for.
inline constexpr std::int32_t max_layers = 256;

STRATA_NAMESPACE_END
