// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a mirror sends for a step, laid out as the device will have it: the step's tables, then what
// changed in the storage's, as numbers to move, cells to fill and blocks to copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <type_traits>

#include <strata/cache/storage.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/step_tables.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// A storage that says when what a sequence holds changed otherwise than by a step's new tokens:
/// forks, and what an index or a snapshot brought.
template <class Storage>
concept versioned_storage =
    requires(Storage const& storage) { storage.table_version(sequence_id{}); };

/// A storage that gives a step blocks of its own instead of those that forks share.
template <class Storage>
concept copying_storage = requires(Storage const& storage) {
  storage.k_copies();
  storage.v_copies();
};

/// Tables of the host that the device has, and keeps from step to step.
class lasting_tables {
 public:
  static constexpr std::int32_t most = 5;

  /// `most` of them at most.
  void add(std::span<std::byte const> host, std::byte* device) noexcept {
    all_[count_++] = {host.data(), host.size(), device};
  }

  /// Where the device has it; the same address, of what it has no copy of.
  template <class T>
  T const* on_device(T const* host) const noexcept {
    for (std::int32_t i = 0; i < count_; ++i) {
      auto const& m = all_[i];
      auto const offset =
          reinterpret_cast<std::uintptr_t>(host) - reinterpret_cast<std::uintptr_t>(m.host);
      if (m.bytes > 0 && offset < m.bytes) return reinterpret_cast<T const*>(m.device + offset);
    }
    return host;
  }

 private:
  struct mirrored {
    void const* host = nullptr;
    std::size_t bytes = 0;
    std::byte* device = nullptr;
  };
  mirrored all_[most];
  std::int32_t count_ = 0;
};

/// Memory to copy from, and where the copy will lie. What has no room is counted, not written.
class step_staging {
 public:
  step_staging(step_layout const& layout, std::byte* staged, std::byte const* device,
               std::int64_t room, lasting_tables const& lasting) noexcept
      : layout_(layout), staged_(staged), device_(device), room_(room), lasting_(lasting) {}

  /// All of a step. sent_versions: [max_sequences], of the tables that the device has; of a storage
  /// without versions nobody reads it.
  template <class Step>
  void put(Step& s, std::uint64_t const* sent_versions) noexcept {
    used_ = layout_.bytes();
    if (used_ <= room_) put_tables(s);
    add_moves(s, sent_versions);
    begin(fills_);
    add_fills(s);
    begin(copies_);
    add_copies(s);
  }

  /// What it takes, be there room or not.
  std::int64_t bytes() const noexcept { return used_; }

  entry_list<table_move> const& moves() const noexcept { return moves_; }
  entry_list<table_fill> const& fills() const noexcept { return fills_; }
  entry_list<memory_copy> const& copies() const noexcept { return copies_; }

  /// Moves first, then their numbers, up to a 16-byte boundary.
  static constexpr std::int64_t move_bytes(std::int64_t moves, std::int64_t numbers) noexcept {
    auto const bytes = moves * static_cast<std::int64_t>(sizeof(table_move)) + numbers * 4;
    return ceil_divide<std::int64_t>(bytes, 16) * 16;
  }

 private:
  std::int32_t* numbers_from(std::int64_t number) const noexcept {
    return reinterpret_cast<std::int32_t*>(staged_) + number;
  }
  void put_table(std::int64_t number, std::span<std::int32_t const> table) const noexcept {
    if (!table.empty()) std::memcpy(numbers_from(number), table.data(), table.size_bytes());
  }

  /// Which of some rows those are that are kept: all of these are among them, in order.
  void put_kept(std::int64_t number, std::span<std::int32_t const> from,
                std::span<std::int32_t const> kept) const noexcept {
    auto* const to = numbers_from(number);
    std::int32_t at = 0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      while (from[static_cast<std::size_t>(at)] != kept[i]) ++at;
      to[i] = at++;
    }
  }

  template <class Step>
  void put_tables(Step& s) const noexcept {
    auto const of_sequences = [&](std::int32_t const* table) {
      return std::span<std::int32_t const>{
          table, static_cast<std::size_t>(table == nullptr ? 0 : layout_.sequences)};
    };
    put_table(layout_.sequence_of(), s.row_sequences());
    put_table(layout_.token_of(), s.row_tokens());
    put_kept(layout_.kept_logits(), s.live_rows({layout_.num_layers - 1}), s.logit_rows());
    bool first = true;  // of the layers with K/V, which all have the same sequences
    for (layer_id l{0}; layout_.num_layers > l.index; ++l.index) {
      auto const of = [&](std::int64_t layer_tables::* table) {
        return layout_.of_layer(l, table);
      };
      put_table(of(&layer_tables::offsets), s.live_offsets(l));
      put_table(of(&layer_tables::input_rows), s.input_rows(l));
      put_table(of(&layer_tables::input_positions), s.input_positions(l));
      put_table(of(&layer_tables::live_positions), s.live_positions(l));
      put_kept(of(&layer_tables::kept), s.input_rows(l), s.live_rows(l));
      auto const keys = s.view(l);
      if (!keys.ok()) continue;  // a layer without K/V
      if (first) {
        put_table(layout_.lengths(), of_sequences(keys->rows.lengths));
        put_table(layout_.ids(), of_sequences(keys->rows.position_row_of));
      }
      first = false;
      put_table(of(&layer_tables::k_read), of_sequences(keys->k.row_of));
      put_table(of(&layer_tables::v_read), of_sequences(keys->v.row_of));
      put_table(of(&layer_tables::k_write), of_sequences(s.k_destination(l).blocks.row_of));
      put_table(of(&layer_tables::v_write), of_sequences(s.v_destination(l).blocks.row_of));
    }
  }

  /// Begins a list where the memory is used up to.
  template <class Entry>
  void begin(entry_list<Entry>& list) const noexcept {
    list = {reinterpret_cast<Entry const*>(device_ + used_), 0};
  }
  template <class Entry>
  void add(entry_list<Entry>& list, Entry const& entry) noexcept {
    auto const at = used_;
    used_ += static_cast<std::int64_t>(sizeof entry);
    if (used_ > room_) return;
    std::memcpy(staged_ + at, &entry, sizeof entry);
    ++list.count;
  }
  void add_fill(std::int32_t const* host, std::int32_t value, std::int32_t step,
                std::int32_t count) noexcept {
    add(fills_, {cell(host), value, step, count});
  }

  /// A number of a lasting table, for kernels to write.
  std::int32_t* cell(std::int32_t const* host) const noexcept {
    return const_cast<std::int32_t*>(lasting_.on_device(host));
  }

  /// Calls body(numbers of a lasting table, how many) for what the step's sequences hold that
  /// changed otherwise than by a step's new tokens.
  template <class Step, class Body>
  void for_changed(Step const& s, std::uint64_t const* sent_versions,
                   Body const& body) const noexcept {
    if constexpr (versioned_storage<std::remove_cvref_t<decltype(s.storage())>>) {
      auto const& storage = s.storage();
      auto const tables = storage.tables();
      auto const rows = std::int64_t{storage.max_sequences()} * layout_.num_layers;
      auto const k_cells = std::ssize(tables.k_blocks) / rows,
                 v_cells = std::ssize(tables.v_blocks) / rows;
      for (auto const& g : s.growths()) {
        auto const id = g.sequence;
        auto const version = storage.table_version(id);
        auto const length = storage.length(id);
        if (version == 0 || version == sent_versions[id.index] || length == 0) continue;
        auto const blocks = ceil_divide(length, storage.block_size());
        auto const& plan = storage.plan(id);
        for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
          auto const row = std::int64_t{id.index} * layout_.num_layers + l.index;
          if (plan[l].k.stored) body(tables.k_blocks.data() + row * k_cells, blocks);
          if (plan[l].v.stored) body(tables.v_blocks.data() + row * v_cells, blocks);
        }
        body(tables.positions.data() + id.index * tables.positions_per_row, length);
      }
    }
  }
  template <class Step>
  void add_moves(Step const& s, std::uint64_t const* sent_versions) noexcept {
    begin(moves_);
    std::int64_t moves = 0, numbers = 0;
    for_changed(s, sent_versions,
                [&](std::int32_t const*, std::int32_t count) { ++moves, numbers += count; });
    auto at = used_, data = used_ + moves * static_cast<std::int64_t>(sizeof(table_move));
    used_ += move_bytes(moves, numbers);
    if (used_ > room_) return;
    for_changed(s, sent_versions, [&](std::int32_t const* host, std::int32_t count) {
      table_move const move{reinterpret_cast<std::int32_t const*>(device_ + data), cell(host),
                            count};
      auto const bytes = static_cast<std::size_t>(count) * sizeof(std::int32_t);
      std::memcpy(staged_ + at, &move, sizeof move);
      std::memcpy(staged_ + data, host, bytes);
      at += static_cast<std::int64_t>(sizeof move);
      data += static_cast<std::int64_t>(bytes);
      ++moves_.count;
    });
  }

  /// The positions of new tokens, and the blocks that they brought.
  template <class Step>
  void add_fills(Step& s) noexcept {
    auto const tables = s.storage().tables();
    for (auto const& g : s.growths()) {
      if (g.new_tokens == 0) continue;
      auto const at = g.sequence.index * tables.positions_per_row + s.storage().length(g.sequence);
      add_fill(tables.positions.data() + at, g.first_position, 1, g.new_tokens);
    }
    for (layer_id l{0}; layout_.num_layers > l.index; ++l.index) {
      add_blocks(s, s.k_destination(l).blocks);
      add_blocks(s, s.v_destination(l).blocks);
    }
    for_copied(s, [&](auto const& copy, writable_blocks const& blocks) {
      // Where the copied block stands in the table.
      add_fill(blocks.block_table + copy.row * blocks.blocks_per_row + copy.index, copy.to, 0, 1);
    });
  }
  template <class Step>
  void add_blocks(Step const& s, writable_blocks const& blocks) noexcept {
    if (blocks.block_table == nullptr || cell(blocks.block_table) == blocks.block_table)
      return;  // none, or one that is the engine's
    std::int32_t seq = 0;
    for (auto const& g : s.growths()) {
      auto const row = blocks.row_of[seq++];
      if (row < 0) continue;
      auto const* const cells = blocks.block_table + row * blocks.blocks_per_row;
      auto const length = s.storage().length(g.sequence);
      auto const end = ceil_divide(length + g.new_tokens, blocks.block_size);
      for (auto i = ceil_divide(length, blocks.block_size); i < end; ++i)
        add_fill(cells + i, cells[i], 0, 1);
    }
  }

  template <class Step>
  void add_copies(Step& s) noexcept {
    for_copied(s, [&](auto const& copy, writable_blocks const& blocks) {
      auto const bytes = blocks.stride.block;
      add(copies_, {blocks.data + copy.from * bytes, blocks.data + copy.to * bytes, bytes});
    });
  }
  /// Calls body(copy, blocks of the pool) for the blocks that the step got instead of those that
  /// forks share.
  template <class Step, class Body>
  void for_copied(Step& s, Body const& body) const noexcept {
    if constexpr (copying_storage<std::remove_cvref_t<decltype(s.storage())>>) {
      auto const l = first_with_kv(s);  // all layers lie in one pool
      auto const k = s.k_destination(l).blocks, v = s.v_destination(l).blocks;
      for (auto const& copy : s.storage().k_copies()) body(copy, k);
      for (auto const& copy : s.storage().v_copies()) body(copy, v);
    }
  }
  template <class Step>
  layer_id first_with_kv(Step const& s) const noexcept {
    layer_id l{0};
    while (layout_.num_layers - 1 > l.index && !s.storage().classes()[l].has_kv) ++l.index;
    return l;
  }

  step_layout layout_;
  std::byte* staged_;
  std::byte const* device_;  // where staged_[0] will lie
  std::int64_t room_, used_ = 0;
  lasting_tables const& lasting_;
  entry_list<table_move> moves_;
  entry_list<table_fill> fills_;
  entry_list<memory_copy> copies_;
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
