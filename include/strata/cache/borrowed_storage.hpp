// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <utility>

#include <strata/cache/sequence_book.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/head_scale_table.hpp>

STRATA_NAMESPACE_BEGIN

/// K and V of one layer in an engine's memory, with the engine's block tables. Sequence id i is row
/// first_row + i: an engine that keeps all layers in one allocation gives each layer a range of
/// rows of one table, and can then mix depths in a batch; one with an allocation per layer cannot.
struct borrowed_layer {
  writable_blocks k = {};
  writable_blocks v = {};
  std::int32_t k_first_row = 0;
  std::int32_t v_first_row = 0;
};

/// A cache whose memory and blocks belong to an engine: strata keeps lengths, positions and plans,
/// nothing else. The engine's tables must have a block for every token before the step that adds
/// it.
/// Threads: const calls at the same time; any other call alone.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
class borrowed_storage {
 public:
  using k_codec = KCodec;
  using v_codec = VCodec;

  /// layers: [num_layers]; those that no plan stores may be left empty. The blocks are copied, the
  /// memory and the tables behind them are not. Blocks that could not hold max_tokens are refused;
  /// what a table says is the engine's to get right.
  ///
  /// A step writes the scales of head-scaled codecs beside its rows, here too, into the engine's
  /// memory: an engine that has set some gives the same as `scales`. One that keeps a scale for all
  /// blocks has a scale_stride.block of 0.
  static result<borrowed_storage> make(kv_classes const& classes,
                                       std::span<borrowed_layer const> layers,
                                       std::int32_t max_sequences, std::int32_t max_tokens,
                                       head_scales const& scales = {}) noexcept {
    if (auto const s = classes.check(); !s.ok()) return s;
    auto const count = static_cast<std::int64_t>(layers.size());
    if (count != classes.num_layers())
      return status{errc::layer_count_mismatch, no_layer, count, classes.num_layers()};
    for (layer_id l{0}; count > l.index; ++l.index)
      if (auto const s = check_layer(layers[static_cast<std::size_t>(l.index)], l, classes[l].kv,
                                     max_sequences, max_tokens);
          !s.ok())
        return s;
    borrowed_storage storage;
    storage.classes_ = classes;
    if (auto const s = storage.scales_.template prepare<KCodec, VCodec>(classes, scales); !s.ok())
      return s;
    if (auto const s = storage.layers_.grow(count); !s.ok()) return s;
    for (std::int64_t l = 0; l < count; ++l)
      storage.layers_[l] = layers[static_cast<std::size_t>(l)];
    if (auto const s = storage.book_.prepare(max_sequences, max_tokens); !s.ok()) return s;
    return result<borrowed_storage>(std::move(storage));  // nvcc 13 does not move by itself
  }

  kv_classes const& classes() const noexcept { return classes_; }

  /// Refuses a plan that stores a layer for which the engine gave no memory.
  result<sequence_id> open(route_plan const& plan) noexcept {
    if (auto const s = check(plan, classes_, use::serving); !s.ok()) return s;
    for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
      bool const lacks_k = plan[l].k.stored && layers_[l.index].k.data == nullptr;
      bool const lacks_v = plan[l].v.stored && layers_[l.index].v.data == nullptr;
      if (lacks_k || lacks_v) return status{errc::layer_without_memory, l};
    }
    return book_.open(plan, classes_.num_layers());
  }
  status close(sequence_id id) noexcept { return book_.close(id); }

  route_plan const& plan(sequence_id id) const noexcept { return book_.plan(id); }
  std::int32_t length(sequence_id id) const noexcept { return book_.length(id); }
  std::int32_t next_position(sequence_id id) const noexcept { return book_.next_position(id); }
  position_table positions() const noexcept { return book_.positions(); }
  /// [kv_heads], of a head-scaled codec; null: all are 1.
  float const* k_head_scales(layer_id layer) const noexcept { return scales_.k.of(layer); }
  float const* v_head_scales(layer_id layer) const noexcept { return scales_.v.of(layer); }

  /// Block tables are the engine's, and where they lie is its own business.
  storage_tables tables() const noexcept {
    return {{}, {}, book_.all_positions(), book_.max_tokens(), scales_.k.all(), scales_.v.all()};
  }

  status reserve(std::span<growth const> growths) noexcept {
    if (auto const s = book_.check(growths); !s.ok()) return s;
    book_.stage(growths);
    return {};
  }
  void commit() noexcept { book_.commit(); }
  void abandon() noexcept { book_.forget(); }

  writable_blocks k_blocks(layer_id source) noexcept { return layers_[source.index].k; }
  writable_blocks v_blocks(layer_id source) noexcept { return layers_[source.index].v; }
  std::int32_t k_row(sequence_id id, layer_id source) const noexcept {
    return layers_[source.index].k_first_row + id.index;
  }
  std::int32_t v_row(sequence_id id, layer_id source) const noexcept {
    return layers_[source.index].v_first_row + id.index;
  }

 private:
  borrowed_storage() noexcept = default;

  static status check_layer(borrowed_layer const& layer, layer_id l, kv_class const& kv,
                            std::int32_t max_sequences, std::int32_t max_tokens) noexcept {
    bool const k_scaled = KCodec::scale_bytes(kv.k_dim) > 0;
    bool const v_scaled = VCodec::scale_bytes(kv.v_dim) > 0;
    if (layer.k.data != nullptr && k_scaled && layer.k.scales == nullptr)
      return null_pointer(tensor::k_scales, l);
    if (layer.v.data != nullptr && v_scaled && layer.v.scales == nullptr)
      return null_pointer(tensor::v_scales, l);
    if (auto const s = check_scales<KCodec>(layer.k, l); !s.ok()) return s;
    if (auto const s = check_scales<VCodec>(layer.v, l); !s.ok()) return s;
    if (auto const s = check_blocks(layer.k, layer.k_first_row, l, max_sequences, max_tokens);
        !s.ok())
      return s;
    return check_blocks(layer.v, layer.v_first_row, l, max_sequences, max_tokens);
  }
  /// Scales of KV heads are written as floats, by several threads at once.
  template <class Codec>
  static status check_scales(writable_blocks const& blocks, layer_id l) noexcept {
    if (!head_scaled_codec<Codec> || blocks.data == nullptr) return {};
    auto const& stride = blocks.scale_stride;
    constexpr std::int64_t size = sizeof(float);
    for (auto const at : {static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(blocks.scales)),
                          stride.block, stride.token, stride.head})
      if (at % size != 0) return {errc::memory_misaligned, l, (at % size + size) % size, size};
    return {};
  }
  static status check_blocks(writable_blocks const& blocks, std::int32_t first_row, layer_id l,
                             std::int32_t max_sequences, std::int32_t max_tokens) noexcept {
    if (blocks.data == nullptr) return {};
    if (blocks.block_size < 1) return {errc::bad_block_size, l, blocks.block_size, 1};
    if (auto const room = blocks.capacity(); room < max_tokens)
      return {errc::row_too_short, l, room, max_tokens};
    if (first_row < 0) return {errc::bad_row_of_blocks, l, first_row, 0};
    // The last sequence's row has to be a number, too.
    auto const last_row = std::int64_t{first_row} + max_sequences - 1;
    constexpr auto most = (std::numeric_limits<std::int32_t>::max)();
    if (last_row > most) return {errc::bad_row_of_blocks, l, last_row, most};
    return {};
  }

  kv_classes classes_;
  detail::array<borrowed_layer> layers_;  // [num_layers]
  sequence_book book_;
  detail::head_scale_tables scales_;
};

STRATA_NAMESPACE_END
