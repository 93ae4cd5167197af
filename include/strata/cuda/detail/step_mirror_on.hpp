// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a device knows of a step. The host keeps the books: sequences, lengths, rows, block tables.
// A mirror sends what a step made anew in one copy, brings the storage's tables up to date by the few
// numbers that changed, and turns pointers of the host into the device's.
//
// Addresses depend on the number of layers, sequences, rows and different tails alone: a batch of the
// same shape finds its tables where the last one did, so a captured graph can be replayed after
// `send`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include <strata/attention/query.hpp>
#include <strata/cache/storage.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/math.hpp>
#include <strata/status.hpp>
#include <strata/step.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

using strata::detail::ceil_divide;
using strata::detail::larger;
using strata::detail::smaller;

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

/// Device: `buffer::make(device, bytes)` and `staging::make(device, bytes)` -> result of an owner with
/// `data()`, of memory of the device and of memory to copy from; `copy(to, from, bytes)`, which may
/// still be under way when it returns; a `launcher()`; `staging::wait()` until what was copied from
/// it has been read, and `staging::mark(device)` after the last copy.
template <class Device>
class step_mirror_on {
 public:
  /// For a storage, and for steps whose tables and changes take up to `bytes` bytes: `bytes_for` says
  /// how many. Takes the storage's tables as they are.
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

  /// What batches of up to so many sequences, rows and different tails of a model need.
  static constexpr std::int64_t bytes_for(std::int32_t num_layers, std::int32_t sequences,
                                          std::int32_t rows, std::int32_t tails = 1) noexcept {
    auto const sets = std::int64_t{tails} + 1;
    auto const numbers = sets * (2 * std::int64_t{rows} + sequences + 1) + 2 * std::int64_t{rows} +
                         4 * std::int64_t{num_layers} * sequences + 2 * std::int64_t{sequences};
    // A block of each of K and V of every layer of every sequence, and each sequence's positions.
    auto const fills = std::int64_t{sequences} * (2 * num_layers + 1) + 2 * std::int64_t{rows};
    return numbers * 4 + most_tables * alignment +
           fills * static_cast<std::int64_t>(sizeof(table_fill));
  }

  /// Sends a step's tables. Waits for nothing but, two sends later, for the copy before the last.
  template <class Storage, class Kernel>
  status send(step<Storage, Kernel>& s) noexcept {
    if (!s.state().ok()) return s.state();
    turn_ = 1 - turn_;
    auto& staging = staging_[turn_];
    if (auto const done = staging.wait(); !done.ok()) return done;
    num_fresh_ = 0;
    used_ = 0;
    status room;
    s.for_each_table([&](std::span<std::int32_t const> table) {
      if (room.ok()) room = add_table(table);
    });
    if (!room.ok()) return room;
    fills_ = {reinterpret_cast<table_fill const*>(step_.data() + used_), 0};
    if (auto const outcome = add_fills(s); !outcome.ok()) return outcome;
    if (auto const done = device_.copy(step_.data(), staging.data(), used_); !done.ok())
      return done;
    if (auto const done = staging.mark(device_); !done.ok()) return done;
    if (fills_.count == 0) return {};
    return device_.launcher().template start<fill_kernel>(smaller<std::int64_t>(fills_.count, 256),
                                                          0, fills_);
  }

  /// The same with the device's pointers. Those that no table of the host is behind stay as they are:
  /// they are the device's already.
  template <class View>
  View on_device(View view) const noexcept {
    translate(view.k);
    translate(view.v);
    translate(view.rows.lengths);
    translate(view.rows.positions);
    translate(view.rows.position_row_of);
    return view;
  }
  template <class T>
  query_rows<T> on_device(query_rows<T> q) const noexcept {
    translate(q.offsets);
    translate(q.positions);
    return q;
  }
  append_rows on_device(append_rows to) const noexcept {
    translate(to.blocks);
    translate(to.rows);
    translate(to.sequence);
    translate(to.token);
    translate(to.positions);
    translate(to.head_scales);
    return to;
  }

 private:
  static constexpr std::int32_t most_tables = 16, most_lasting = 5;
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

  status take_room(std::int64_t bytes) noexcept {
    if (used_ + bytes > room_) return {errc::mirror_too_small, no_layer, room_, used_ + bytes};
    used_ += bytes;
    return {};
  }

  status add_table(std::span<std::int32_t const> table) noexcept {
    auto const at = used_;
    if (auto const s = take_room(padded(table.size_bytes())); !s.ok()) return s;
    if (!table.empty()) std::memcpy(staging_[turn_].data() + at, table.data(), table.size_bytes());
    fresh_[num_fresh_++] = {table.data(), table.size_bytes(), step_.data() + at};
    return {};
  }

  status add_fill(std::int32_t const* host, std::int32_t value, std::int32_t step,
                  std::int32_t count) noexcept {
    auto const at = used_;
    if (auto const s = take_room(sizeof(table_fill)); !s.ok()) return s;
    table_fill const fill{const_cast<std::int32_t*>(translated(host)), value, step, count};
    std::memcpy(staging_[turn_].data() + at, &fill, sizeof fill);
    ++fills_.count;
    return {};
  }

  /// The positions of new tokens, and the blocks that they brought.
  template <class Step>
  status add_fills(Step& s) noexcept {
    auto const tables = s.storage().tables();
    for (auto const& g : s.growths()) {
      if (g.new_tokens == 0) continue;
      auto const at = g.sequence.index * tables.positions_per_row + s.storage().length(g.sequence);
      auto const done = add_fill(tables.positions.data() + at, g.first_position, 1, g.new_tokens);
      if (!done.ok()) return done;
    }
    for (layer_id l{0}; s.storage().classes().num_layers() > l.index; ++l.index) {
      if (auto const done = add_blocks(s, s.k_writers(l)); !done.ok()) return done;
      if (auto const done = add_blocks(s, s.v_writers(l)); !done.ok()) return done;
    }
    return {};
  }
  template <class Step, class Runs>
  status add_blocks(Step const& s, Runs const& runs) noexcept {
    if (runs.empty() || runs.front().destination().blocks.block_table == nullptr) return {};
    auto const& blocks = runs.front().destination().blocks;
    std::int32_t seq = 0;
    for (auto const& g : s.growths()) {
      auto const row = blocks.row_of[seq++];
      if (row < 0) continue;
      auto const* const cells = blocks.block_table + row * blocks.blocks_per_row;
      auto const length = s.storage().length(g.sequence);
      auto const end = ceil_divide(length + g.new_tokens, blocks.block_size);
      for (auto i = ceil_divide(length, blocks.block_size); i < end; ++i)
        if (auto const done = add_fill(cells + i, cells[i], 0, 1); !done.ok()) return done;
    }
    return {};
  }

  template <class T>
  T const* translated(T const* host) const noexcept {
    for (std::int32_t i = 0; i < num_lasting_ + num_fresh_; ++i) {
      auto const& m = i < num_lasting_ ? lasting_[i] : fresh_[i - num_lasting_];
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
  template <class Byte>
  void translate(basic_tensor_blocks<Byte>& blocks) const noexcept {
    translate(blocks.block_table);
    translate(blocks.row_of);
  }

  Device device_;
  typename Device::buffer tables_, step_;
  typename Device::staging staging_[2];
  std::int32_t turn_ = 0;
  std::int64_t room_ = 0, used_ = 0;
  mirrored lasting_[most_lasting], fresh_[most_tables];
  std::int32_t num_lasting_ = 0, num_fresh_ = 0;
  table_fills fills_;
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
