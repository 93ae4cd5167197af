// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a device knows of a step. The host keeps the books: sequences, lengths, rows, block tables.
// A mirror sends what a step made anew in one copy, brings the storage's tables up to date by the
// few numbers that changed, and says what a layer's launches are given.
//
// Where a number lies depends on how many layers, sequences and rows there are, and on nothing
// else: every layer has rows, positions and offsets of its own, though many are the same. So a
// captured graph serves every later batch of as many sequences and rows, whatever their plans, once
// it was sent. (4 (5 layers x sequences + 3 layers x rows) bytes a step: 12 KB for 36 layers and 8
// tokens, 3.6 MB for a prompt of 8192.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <type_traits>
#include <utility>

#include <strata/attention/query.hpp>
#include <strata/cache/storage.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/append_body.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/math.hpp>
#include <strata/status.hpp>
#include <strata/step.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// `count` numbers from `to` on: value, value + step, ...
struct table_fill {
  std::int32_t* to = nullptr;
  std::int32_t value = 0, step = 0, count = 0;
};

struct table_fills {
  table_fill const* fills = nullptr;  ///< [count]
  std::int32_t count = 0;
};

/// A warp to a fill.
struct fill_kernel {
  static constexpr std::int32_t threads = 128, blocks_per_multiprocessor = 8;
  template <thread_block Block>
  STRATA_DEVICE static void run(Block const& block, table_fills const& all) {
    auto const warps = block.count() * (threads / warp_size);
    for (auto i = block.index() * (threads / warp_size) + warp_of(block); i < all.count;
         i += warps) {
      auto const fill = all.fills[i];
      for (auto j = lane_of(block); j < fill.count; j += warp_size)
        fill.to[j] = fill.value + j * fill.step;
    }
  }
};

/// Blocks that forks shared, and of which a step has to have its own.
struct memory_copy {
  std::byte const* from = nullptr;
  std::byte* to = nullptr;
  std::int64_t bytes = 0;  // a multiple of 16, as both addresses are
};

struct memory_copies {
  memory_copy const* copies = nullptr;  ///< [count]
  std::int32_t count = 0;
};

struct copy_kernel {
  static constexpr std::int32_t threads = 128, blocks_per_multiprocessor = 8;
  template <thread_block Block>
  STRATA_DEVICE static void run(Block const& block, memory_copies const& all) {
    for (auto i = block.index(); i < all.count; i += block.count()) {
      auto const copy = all.copies[i];
      for (std::int64_t at = block.thread() * std::int64_t{16}; at < copy.bytes; at += threads * 16)
        *reinterpret_cast<chunk*>(copy.to + at) = block.load(copy.from + at);
    }
  }
};

/// Where a layer's tables begin among its own, in numbers.
struct layer_tables {
  std::int64_t k_read = 0, k_write = 0, v_read = 0, v_write = 0;  ///< [sequences]
  std::int64_t offsets = 0;                                       ///< [sequences + 1]
  std::int64_t input_rows = 0, input_positions = 0;               ///< [rows]
  std::int64_t live_positions = 0;                                ///< [rows]
  std::int64_t end = 0;
};

/// Where the tables of a step lie, in numbers from the first on.
struct step_layout {
  std::int32_t num_layers = 0, sequences = 0, rows = 0;

  constexpr std::int64_t lengths() const noexcept { return 0; }
  constexpr std::int64_t ids() const noexcept { return sequences; }
  constexpr std::int64_t sequence_of() const noexcept { return 2 * std::int64_t{sequences}; }
  constexpr std::int64_t token_of() const noexcept { return sequence_of() + rows; }

  constexpr layer_tables tables() const noexcept {
    auto const s = std::int64_t{sequences}, r = std::int64_t{rows};
    auto const of_rows = 5 * s + 1;
    return {0, s, 2 * s, 3 * s, 4 * s, of_rows, of_rows + r, of_rows + 2 * r, of_rows + 3 * r};
  }
  constexpr std::int64_t of_layer(layer_id l, std::int64_t layer_tables::* table) const noexcept {
    auto const own = tables();
    return token_of() + rows + l.index * own.end + own.*table;
  }
  /// Of all tables, so that what follows is 16-byte aligned.
  constexpr std::int64_t bytes() const noexcept {
    auto const numbers = of_layer({num_layers}, &layer_tables::k_read);
    return ceil_divide<std::int64_t>(numbers * 4, 16) * 16;
  }
};

/// Device: `buffer::make(device, bytes)` and `staging::make(device, bytes)` -> result of an owner
/// with `data()`, of memory of the device and of memory to copy from; `copy(to, from, bytes)`,
/// which may still be under way when it returns; a `launcher()`; `staging::wait()` until what was
/// copied from it has been read, and `staging::mark(device)` after the last copy.
template <class Device>
class step_mirror_on {
 public:
  /// For a storage, and for steps whose tables and changes take up to `bytes` bytes: `bytes_for`
  /// says how many. Takes the storage's tables as they are.
  template <class Storage>
  static result<step_mirror_on> make(Device const& device, Storage const& storage,
                                     std::int64_t bytes) noexcept {
    step_mirror_on mirror(device);
    auto const tables = storage.tables();
    std::span<std::byte const> const all[most_lasting] = {
        std::as_bytes(tables.k_blocks), std::as_bytes(tables.v_blocks),
        std::as_bytes(tables.positions), std::as_bytes(tables.k_scales),
        std::as_bytes(tables.v_scales)};
    std::int64_t total = 0;
    for (auto const& t : all) total += padded(t.size_bytes());
    if (auto const s = mirror.allocate(total, bytes); !s.ok()) return s;
    if constexpr (requires { storage.table_version(sequence_id{}); })
      if (auto const s = mirror.take_versions(storage); !s.ok()) return s;
    std::int64_t at = 0;
    for (auto const& t : all) {
      mirror.lasting_[mirror.num_lasting_++] = {t.data(), t.size_bytes(),
                                                mirror.tables_.data() + at};
      if (auto const s = device.copy(mirror.tables_.data() + at, t.data(), t.size_bytes()); !s.ok())
        return s;
      at += padded(t.size_bytes());
    }
    return result<step_mirror_on>(std::move(mirror));
  }

  /// What batches of up to so many sequences and rows need; of a paged storage, in blocks of
  /// `block_size` tokens.
  static constexpr std::int64_t bytes_for(std::int32_t num_layers, std::int32_t sequences,
                                          std::int32_t rows, std::int32_t block_size = 1) noexcept {
    // Every new block of K and of V of every layer, and every sequence's positions; of forks a copy of
    // a block instead, with its place in the table.
    auto const blocks = std::int64_t{sequences} + rows / block_size;
    auto const copies = 2 * std::int64_t{num_layers} * sequences;
    auto const fills = 2 * num_layers * blocks + sequences + copies;
    return step_layout{num_layers, sequences, rows}.bytes() +
           fills * static_cast<std::int64_t>(sizeof(table_fill)) +
           copies * static_cast<std::int64_t>(sizeof(memory_copy));
  }

  /// Sends a step's tables. Waits for nothing but, two sends later, for the copy before the last.
  /// What is launched for the step has to follow on the same stream, and come before the next
  /// `send`.
  template <class Storage, class Kernel>
  status send(step<Storage, Kernel>& s) noexcept {
    if (!s.state().ok()) return s.state();
    turn_ = 1 - turn_;
    auto& staging = staging_[turn_];
    if (auto const done = staging.wait(); !done.ok()) return done;
    layout_ = {s.storage().classes().num_layers(), static_cast<std::int32_t>(s.growths().size()),
               s.num_rows()};
    used_ = layout_.bytes();
    if (used_ <= room_) put_tables(s);
    fills_ = {reinterpret_cast<table_fill const*>(step_.data() + used_), 0};
    add_fills(s);
    copies_ = {reinterpret_cast<memory_copy const*>(step_.data() + used_), 0};
    add_copies(s);
    if (used_ > room_) return {errc::mirror_too_small, no_layer, room_, used_};
    if (auto const done = refresh(s); !done.ok()) return done;
    if (auto const done = device_.copy(step_.data(), staging.data(), used_); !done.ok())
      return done;
    if (auto const done = staging.mark(device_); !done.ok()) return done;
    if (auto const done = start<fill_kernel>(fills_); !done.ok()) return done;
    return start<copy_kernel>(copies_);
  }

  /// What attention of a layer reads, of the step that was sent last: `step::view` with pointers of
  /// the device. Those that the mirror has no copy of, an engine's own tables, stay as they are.
  ///
  /// In a captured graph: positions are there only where a sequence had gaps when it was captured.
  template <class Storage, class Kernel>
  auto view(step<Storage, Kernel>& s, layer_id l) const noexcept {
    auto all = s.view(l);
    if (!all.ok()) return all;
    auto& v = *all;
    translate(v.k.block_table);
    translate(v.v.block_table);
    translate(v.rows.positions);
    v.k.row_of = at(layout_.of_layer(l, &layer_tables::k_read));
    v.v.row_of = at(layout_.of_layer(l, &layer_tables::v_read));
    v.rows.lengths = at(layout_.lengths());
    v.rows.position_row_of = at(layout_.ids());
    return all;
  }

  /// What it asks: `step::queries` with pointers of the device.
  template <class Storage, class Kernel, class T>
  result<query_rows<T>> queries(step<Storage, Kernel>& s, layer_id l,
                                layer_queries<T> const& given) const noexcept {
    auto rows = s.queries(l, given);
    if (!rows.ok()) return rows;
    rows->offsets = at(layout_.of_layer(l, &layer_tables::offsets));
    rows->positions = at(layout_.of_layer(l, &layer_tables::live_positions));
    return rows;
  }

  /// All input rows of a layer, for `append`: heads is [input rows, kv_heads, dim], rows
  /// `row_stride` elements apart (0: without gaps). Rows whose plan does not store the layer are
  /// passed by; where none does, there are no rows at all, and nothing is launched, unless `always`:
  /// for a graph that will serve batches that do. Marks what is stored.
  template <class Storage, class Kernel, class T>
  append_side<T> k_side(step<Storage, Kernel>& s, layer_id l, T const* heads, bool always = false,
                        std::int64_t row_stride = 0) const noexcept {
    auto made =
        side(s, l, heads, s.k_destination(l), &layer_tables::k_write, s.k_writers(l), always);
    made.row_stride = row_stride;
    return made;
  }
  template <class Storage, class Kernel, class T>
  append_side<T> v_side(step<Storage, Kernel>& s, layer_id l, T const* heads, bool always = false,
                        std::int64_t row_stride = 0) const noexcept {
    auto made =
        side(s, l, heads, s.v_destination(l), &layer_tables::v_write, s.v_writers(l), always);
    made.row_stride = row_stride;
    return made;
  }

 private:
  static constexpr std::int32_t most_lasting = 5;
  static constexpr std::int64_t alignment = 64;

  /// Memory of the host that the device has a copy of.
  struct mirrored {
    void const* host = nullptr;
    std::size_t bytes = 0;
    std::byte* device = nullptr;
  };

  explicit step_mirror_on(Device const& device) noexcept : device_(device) {}

  static std::int64_t padded(std::size_t bytes) noexcept {
    return ceil_divide(static_cast<std::int64_t>(bytes), alignment) * alignment;
  }

  status allocate(std::int64_t table_bytes, std::int64_t step_bytes) noexcept {
    auto const take = [&](auto& owner, std::int64_t bytes) -> status {
      auto made =
          std::remove_reference_t<decltype(owner)>::make(device_, larger<std::int64_t>(bytes, 1));
      if (!made.ok()) return made.state();
      owner = std::move(*made);
      return {};
    };
    if (auto const s = take(tables_, table_bytes); !s.ok()) return s;
    if (auto const s = take(step_, step_bytes); !s.ok()) return s;
    room_ = step_bytes;
    for (auto& staging : staging_)
      if (auto const s = take(staging, step_bytes); !s.ok()) return s;
    return {};
  }

  /// Of the sequences whose tables are sent as they are, at the beginning.
  template <class Storage>
  status take_versions(Storage const& storage) noexcept {
    if (auto const s = versions_.assign(storage.max_sequences(), 0); !s.ok()) return s;
    for (sequence_id id{0}; storage.max_sequences() > id.index; ++id.index)
      if (storage.check_idle(id).ok()) versions_[id.index] = storage.table_version(id);
    return {};
  }

  /// Numbers of the step's tables on the device.
  std::int32_t const* at(std::int64_t number) const noexcept {
    return reinterpret_cast<std::int32_t const*>(step_.data()) + number;
  }
  void put(std::int64_t number, std::span<std::int32_t const> table) noexcept {
    auto* const to = reinterpret_cast<std::int32_t*>(staging_[turn_].data()) + number;
    if (!table.empty()) std::memcpy(to, table.data(), table.size_bytes());
  }

  template <class Step>
  void put_tables(Step& s) noexcept {
    auto const of_sequences = [&](std::int32_t const* table) {
      return std::span<std::int32_t const>{
          table, static_cast<std::size_t>(table == nullptr ? 0 : layout_.sequences)};
    };
    put(layout_.sequence_of(), s.row_sequences());
    put(layout_.token_of(), s.row_tokens());
    bool first = true;  // of the layers with K/V, which all have the same sequences
    for (layer_id l{0}; layout_.num_layers > l.index; ++l.index) {
      auto const of = [&](std::int64_t layer_tables::* table) {
        return layout_.of_layer(l, table);
      };
      put(of(&layer_tables::offsets), s.live_offsets(l));
      put(of(&layer_tables::input_rows), s.input_rows(l));
      put(of(&layer_tables::input_positions), s.input_positions(l));
      put(of(&layer_tables::live_positions), s.live_positions(l));
      auto const keys = s.view(l);
      if (!keys.ok()) continue;  // a layer without K/V
      if (first) {
        put(layout_.lengths(), of_sequences(keys->rows.lengths));
        put(layout_.ids(), of_sequences(keys->rows.position_row_of));
      }
      first = false;
      put(of(&layer_tables::k_read), of_sequences(keys->k.row_of));
      put(of(&layer_tables::v_read), of_sequences(keys->v.row_of));
      put(of(&layer_tables::k_write), of_sequences(s.k_destination(l).blocks.row_of));
      put(of(&layer_tables::v_write), of_sequences(s.v_destination(l).blocks.row_of));
    }
  }

  template <class Body, class Entries>
  status start(Entries const& entries) const noexcept {
    if (entries.count == 0) return {};
    auto const blocks = smaller<std::int64_t>(entries.count, 256);
    return device_.launcher().template start<Body>(blocks, 0, entries);
  }

  /// Sends a sequence's rows of the lasting tables where they changed otherwise than by a step's new
  /// tokens: forks, and what an index or a snapshot brought.
  template <class Step>
  status refresh(Step& s) noexcept {
    if constexpr (requires { s.storage().table_version(sequence_id{}); }) {
      auto const tables = s.storage().tables();
      for (auto const& g : s.growths()) {
        auto const version = s.storage().table_version(g.sequence);
        auto& seen = versions_[g.sequence.index];
        if (version == 0 || version == seen) continue;
        std::span<std::int32_t const> const all[] = {tables.k_blocks, tables.v_blocks,
                                                     tables.positions};
        for (auto const table : all) {
          auto const rows = std::ssize(table) / s.storage().max_sequences();
          auto const* const first = table.data() + g.sequence.index * rows;
          auto* const to =
              reinterpret_cast<std::byte*>(const_cast<std::int32_t*>(translated(first)));
          auto const bytes = static_cast<std::size_t>(rows) * sizeof(std::int32_t);
          if (auto const done = device_.copy(to, first, bytes); !done.ok()) return done;
        }
        seen = version;
      }
    }
    return {};
  }

  /// Blocks that the step got instead of those that forks share.
  template <class Step>
  void add_copies(Step& s) noexcept {
    if constexpr (requires { s.storage().k_copies(); }) {
      auto const add = [&](auto const& copies, auto const& blocks) {
        for (auto const& c : copies) {
          auto const* const from = blocks.data + c.from * blocks.stride.block;
          memory_copy const copy{from, blocks.data + c.to * blocks.stride.block,
                                 blocks.stride.block};
          auto const at = used_;
          used_ += static_cast<std::int64_t>(sizeof copy);
          if (used_ > room_) continue;
          std::memcpy(staging_[turn_].data() + at, &copy, sizeof copy);
          ++copies_.count;
        }
      };
      auto const l = first_with_kv(s);  // all layers lie in one pool
      add(s.storage().k_copies(), s.k_destination(l).blocks);
      add(s.storage().v_copies(), s.v_destination(l).blocks);
    }
  }
  template <class Step>
  layer_id first_with_kv(Step const& s) const noexcept {
    layer_id l{0};
    while (layout_.num_layers - 1 > l.index && !s.storage().classes()[l].has_kv) ++l.index;
    return l;
  }

  void add_fill(std::int32_t const* host, std::int32_t value, std::int32_t step,
                std::int32_t count) noexcept {
    table_fill const fill{const_cast<std::int32_t*>(translated(host)), value, step, count};
    auto const at = used_;
    used_ += static_cast<std::int64_t>(sizeof fill);  // counted to the end, to say what it takes
    if (used_ > room_) return;
    std::memcpy(staging_[turn_].data() + at, &fill, sizeof fill);
    ++fills_.count;
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
    if constexpr (requires { s.storage().k_copies(); }) {
      add_cells(s.storage().k_copies(), s.k_destination(first_with_kv(s)).blocks);
      add_cells(s.storage().v_copies(), s.v_destination(first_with_kv(s)).blocks);
    }
  }
  /// Where copied blocks stand in the table.
  template <class Copies, class Blocks>
  void add_cells(Copies const& copies, Blocks const& blocks) noexcept {
    for (auto const& c : copies)
      add_fill(blocks.block_table + c.row * blocks.blocks_per_row + c.index, c.to, 0, 1);
  }
  template <class Step>
  void add_blocks(Step const& s, writable_blocks const& blocks) noexcept {
    if (blocks.block_table == nullptr || translated(blocks.block_table) == blocks.block_table)
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

  template <class Step, class T, class Runs>
  append_side<T> side(Step& s, layer_id l, T const* heads, append_rows to,
                      std::int64_t layer_tables::* written, Runs const& runs,
                      bool always) const noexcept {
    for (auto const& run : runs) run.mark_stored();
    translate(to.blocks.block_table);
    translate(to.head_scales);
    to.blocks.row_of = at(layout_.of_layer(l, written));
    to.rows = at(layout_.of_layer(l, &layer_tables::input_rows));
    to.positions = at(layout_.of_layer(l, &layer_tables::input_positions));
    to.sequence = at(layout_.sequence_of());
    to.token = at(layout_.token_of());
    auto const count = static_cast<std::int32_t>(s.input_rows(l).size());
    return {heads, to, 0, runs.empty() && !always ? 0 : count};
  }

  template <class T>
  T const* translated(T const* host) const noexcept {
    for (std::int32_t i = 0; i < num_lasting_; ++i) {
      auto const& m = lasting_[i];
      auto const offset =
          reinterpret_cast<std::uintptr_t>(host) - reinterpret_cast<std::uintptr_t>(m.host);
      if (m.bytes > 0 && offset < m.bytes) return reinterpret_cast<T const*>(m.device + offset);
    }
    return host;
  }
  template <class T>
  void translate(T const*& host) const noexcept {
    host = translated(host);
  }

  Device device_;
  typename Device::buffer tables_, step_;
  typename Device::staging staging_[2];
  std::int32_t turn_ = 0;
  std::int64_t room_ = 0, used_ = 0;
  step_layout layout_;  // of the step that was sent last
  mirrored lasting_[most_lasting];
  std::int32_t num_lasting_ = 0;
  table_fills fills_;
  memory_copies copies_;
  strata::detail::array<std::uint64_t> versions_;  // [max_sequences], of the rows that were sent
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
