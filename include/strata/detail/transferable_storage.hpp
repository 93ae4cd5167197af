// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The bytes of a block storage's sequences: where they lie, and sequences that come from elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/block_storage.hpp>
#include <strata/tensor.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

template <kv_codec KCodec, kv_codec VCodec>
class transferable_storage : public block_storage<KCodec, VCodec> {
 public:
  /// The first token of a sequence whose K (or V) a layer still holds: windows let go of others.
  std::int32_t first_token(sequence_id id, layer_id layer, tensor which) const noexcept {
    return pool_of(which).first_token(this->table_row(id, layer));
  }

  /// Where the tokens [begin, end) of a sequence lie at a layer that stores them: calls body(bytes)
  /// for one piece of memory after the other. The one door for snapshots, wires and offload. `which`:
  ///
  ///   k, v                  rows: [tokens, kv_heads, row_bytes] in all
  ///   k_scales, v_scales    [tokens, kv_heads, scale_bytes]; of a head-scaled codec the same
  ///                         [kv_heads, scale_bytes] once for every block; nothing without scales
  ///
  /// Bytes of a device are its addresses. Refuses what is not there. Not during a step.
  template <class Body>
  status for_bytes(sequence_id id, layer_id layer, tensor which, std::int32_t begin,
                   std::int32_t end, Body const& body) const noexcept {
    if (auto const s = check_bytes(id, layer, which, begin, end); !s.ok()) return s;
    bool const scales = which == tensor::k_scales || which == tensor::v_scales;
    auto const shape = is_k(which) ? this->k_shape(layer) : this->v_shape(layer);
    pool_of(which).for_bytes(
        this->table_row(id, layer), shape, scales, begin, end,
        [&](std::span<std::byte> bytes) { body(std::span<std::byte const>(bytes)); });
    return {};
  }

  /// A sequence as it was elsewhere, to be filled by `import_bytes`, which gives what `for_bytes`
  /// does, writable. Reserves everything or changes nothing.
  result<sequence_id> import_sequence(imported_sequence const& from) noexcept {
    if (auto const s = check_import(from); !s.ok()) return s;
    auto const id = this->open(from.plan);
    if (!id.ok()) return id;
    for (auto const column : columns)
      this->for_stored(*id, column, [&](layer_id l, std::int64_t row) {
        auto& pool = column == &layer_step::k ? this->k_pool_ : this->v_pool_;
        pool.take_late(row, first_token_of(from, column, l), pool.blocks_for(from.length));
      });
    this->book_.take_in(*id, from);
    return id;
  }
  template <class Body>
  status import_bytes(sequence_id id, layer_id layer, tensor which, std::int32_t begin,
                      std::int32_t end, Body const& body) noexcept {
    if (auto const s = check_bytes(id, layer, which, begin, end); !s.ok()) return s;
    bool const scales = which == tensor::k_scales || which == tensor::v_scales;
    auto const shape = is_k(which) ? this->k_shape(layer) : this->v_shape(layer);
    pool_of(which).for_bytes(this->table_row(id, layer), shape, scales, begin, end, body);
    return {};
  }
  /// Refuses what `import_sequence` would, blocks apart; how many it takes.
  result<pool_blocks> import_needs(imported_sequence const& from) const noexcept {
    if (auto const s = check_imported(from); !s.ok()) return s;
    std::int64_t needed[2] = {};
    for (auto const column : columns)
      for (layer_id l{0}; from.plan.num_layers > l.index; ++l.index)
        if ((from.plan[l].*column).stored)
          needed[column == &layer_step::v] +=
              this->k_pool_.blocks_for(from.length) -
              first_token_of(from, column, l) / this->k_pool_.block_size();
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    for (auto const count : needed)
      if (count > most) return status{errc::size_overflow, no_layer, count, 1};
    return pool_blocks{static_cast<std::int32_t>(needed[0]), static_cast<std::int32_t>(needed[1])};
  }

 protected:
  transferable_storage() noexcept = default;

 private:
  using column_type = route layer_step::*;
  static constexpr column_type columns[2] = {&layer_step::k, &layer_step::v};

  static constexpr bool is_k(tensor which) noexcept {
    return which == tensor::k || which == tensor::k_scales;
  }
  block_pool const& pool_of(tensor which) const noexcept {
    return is_k(which) ? this->k_pool_ : this->v_pool_;
  }

  status check_bytes(sequence_id id, layer_id layer, tensor which, std::int32_t begin,
                     std::int32_t end) const noexcept {
    if (auto const s = this->check_idle(id); !s.ok()) return s;
    if (!layer.valid() || layer >= layer_id{this->classes().num_layers()})
      return {errc::layer_out_of_range, layer, layer.index, this->classes().num_layers()};
    auto const& routes = this->book_.plan(id)[layer];
    if (!(is_k(which) ? routes.k : routes.v).stored) return {errc::layer_stores_nothing, layer};
    auto const first = first_token(id, layer, which);
    if (begin < first || begin > end) return {errc::value_too_small, layer, begin, first};
    if (end > this->book_.length(id))
      return {errc::value_too_large, layer, end, this->book_.length(id)};
    return {};
  }

  /// The first token of an imported sequence that its next query sees at a layer. A layer without a
  /// window has let go of nothing, however far away its first token stands.
  std::int32_t first_seen(imported_sequence const& from, layer_id l) const noexcept {
    if (from.length == 0 || this->classes()[l].window == unbounded_window) return 0;
    auto const* const positions = from.positions.empty() ? nullptr : from.positions.data();
    auto const last = positions == nullptr ? from.length - 1 : positions[from.length - 1];
    return first_token_at(positions, from.length,
                          std::int64_t{last} + 2 - this->classes()[l].window);
  }

  /// The first token that an imported sequence has of a layer.
  std::int32_t first_token_of(imported_sequence const& from, route layer_step::* column,
                              layer_id l) const noexcept {
    if (from.first_tokens.empty()) return 0;
    auto const at = l.index + (column == &layer_step::v) * this->classes().num_layers();
    return from.first_tokens[static_cast<std::size_t>(at)];
  }
  status check_imported(imported_sequence const& from) const noexcept {
    if (auto const s = check(from.plan, this->classes(), use::serving); !s.ok()) return s;
    auto const layers = this->classes().num_layers();
    auto const given = static_cast<std::int64_t>(from.first_tokens.size());
    if (given != 0 && given != 2 * layers)
      return {errc::layer_count_mismatch, no_layer, given, 2 * layers};
    if (auto const s = this->book_.check_import(from); !s.ok()) return s;
    for (std::int32_t i = 0; i < given; ++i) {
      layer_id const l{i % layers};
      auto const first = from.first_tokens[static_cast<std::size_t>(i)];
      auto const seen = first_seen(from, l);
      if (first < 0 || first > seen) return {errc::window_let_go, l, seen, first};
    }
    return {};
  }
  status check_import(imported_sequence const& from) const noexcept {
    auto const needed = import_needs(from);
    if (!needed.ok()) return needed.state();
    return this->check_room(1, needed->k, needed->v);
  }
};

}  // namespace detail

STRATA_NAMESPACE_END
