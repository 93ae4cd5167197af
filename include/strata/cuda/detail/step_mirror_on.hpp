// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a device knows of a step. The host keeps the books: sequences, lengths, rows, block tables.
// A mirror sends what a step made anew in one copy, brings the storage's tables up to date by the
// few numbers that changed, and says what a layer's launches are given.
//
// Where a number lies depends on how many layers, sequences and rows there are, and on nothing
// else: every layer has rows, positions and offsets of its own, though many are the same. How many
// rows a layer has is in the launches, though: its input rows in append, its live rows in
// keep_live and in whatever an engine multiplies. So a captured graph serves a later batch, once it
// was sent, where that has as many sequences and rows, and as many live rows at every layer.
// Decode has, whatever the plans: where every sequence brings one token and wants logits, all rows
// live everywhere. A prompt that wants its last logits alone has not: its rows end where its
// plan's tail begins, 8 8 8 8 of 8 tokens where every layer leads, 8 1 1 1 where the first does.
// (4 (5 layers x sequences + 4 layers x rows) bytes a step: 11 KB for 36 layers and 8 tokens, 4.7
// MB for a prompt of 8192.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include <strata/attention/query.hpp>
#include <strata/cache/storage.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/append_body.hpp>
#include <strata/cuda/detail/step_staging.hpp>
#include <strata/cuda/detail/step_tables.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/math.hpp>
#include <strata/status.hpp>
#include <strata/step.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// Device: `buffer::make(device, bytes)` and `staging::make(device, bytes)` -> result of an owner
/// with `data()`, of memory of the device and of memory to copy from; `copy(to, from, bytes)`,
/// which may still be under way when it returns; a `launcher()`; `staging::wait()` until what was
/// copied from it has been read, and `staging::mark(device)` after the last copy. What is copied
/// from other memory is there until a marked staging has been waited for.
template <class Device>
class step_mirror_on {
 public:
  /// For a storage, and for steps whose tables and changes take up to `bytes` bytes: `bytes_for`
  /// says how many. Takes the storage's tables as they are, and waits until the device has them.
  template <class Storage>
  static result<step_mirror_on> make(Device const& device, Storage const& storage,
                                     std::int64_t bytes) noexcept {
    step_mirror_on mirror(device);
    auto const tables = storage.tables();
    std::span<std::byte const> const all[lasting_tables::most] = {
        std::as_bytes(tables.k_blocks), std::as_bytes(tables.v_blocks),
        std::as_bytes(tables.positions), std::as_bytes(tables.k_scales),
        std::as_bytes(tables.v_scales)};
    std::int64_t total = 0;
    for (auto const& t : all) total += padded(t.size_bytes());
    if (auto const s = mirror.allocate(total, bytes); !s.ok()) return s;
    if constexpr (versioned_storage<Storage>)
      if (auto const s = mirror.take_versions(storage); !s.ok()) return s;
    std::int64_t at = 0;
    for (auto const& t : all) {
      auto* const to = mirror.tables_.data() + at;
      mirror.lasting_.add(t, to);
      if (auto const s = device.copy(to, t.data(), t.size_bytes()); !s.ok()) return s;
      at += padded(t.size_bytes());
    }
    // The storage's tables may change, and go, as soon as this returns.
    if (auto const s = mirror.staging_[0].mark(device); !s.ok()) return s;
    if (auto const s = mirror.staging_[0].wait(); !s.ok()) return s;
    return result<step_mirror_on>(std::move(mirror));
  }

  /// What batches of up to so many sequences and rows need; of a paged storage, in blocks of
  /// `block_size` tokens.
  ///
  /// changed_tokens: how long those of a batch's sequences are, all together, that changed
  /// otherwise than by steps since they were last sent: forks, what an index or a snapshot brought,
  /// and, where a step that copied shared blocks was given up, its sequences. 4 bytes for every
  /// token and for every block of a stored tensor, 24 for every stored tensor. Without forks and
  /// their like: 0. A step that takes more than the mirror has is refused; it may be given up and
  /// begun again with fewer sequences.
  static constexpr std::int64_t bytes_for(std::int32_t num_layers, std::int32_t sequences,
                                          std::int32_t rows, std::int32_t block_size = 1,
                                          std::int64_t changed_tokens = 0) noexcept {
    // Every new block of K and of V of every layer, and every sequence's positions; of forks a copy
    // of a block instead, with its place in the table.
    auto const tensors = 2 * std::int64_t{num_layers};
    auto const blocks = std::int64_t{sequences} + rows / block_size;
    auto const copies = tensors * sequences;
    auto const fills = tensors * blocks + sequences + copies;
    auto const moves = changed_tokens > 0 ? (tensors + 1) * sequences : 0;
    auto const cells = changed_tokens > 0 ? tensors * (sequences + changed_tokens / block_size) : 0;
    return step_layout{num_layers, sequences, rows}.bytes() +
           step_staging::move_bytes(moves, cells + changed_tokens) +
           fills * static_cast<std::int64_t>(sizeof(table_fill)) +
           copies * static_cast<std::int64_t>(sizeof(memory_copy));
  }

  /// Sends a step's tables, and what changed in the storage's: one copy, from memory of the
  /// mirror's own. Waits for nothing but, two sends later, for the copy before the last. What is
  /// launched for the step has to follow on the same stream, and come before the next `send`.
  template <class Storage, class Kernel>
  status send(step<Storage, Kernel>& s) noexcept {
    if (!s.state().ok()) return s.state();
    turn_ = 1 - turn_;
    auto& memory = staging_[turn_];
    if (auto const done = memory.wait(); !done.ok()) return done;
    layout_ = {s.storage().classes().num_layers(), static_cast<std::int32_t>(s.growths().size()),
               s.num_rows()};
    step_staging staged(layout_, memory.data(), step_.data(), room_, lasting_);
    staged.put(s, versions_.data());
    auto const bytes = staged.bytes();
    if (bytes > room_) return {errc::mirror_too_small, no_layer, room_, bytes};
    if (auto const done =
            device_.copy(step_.data(), memory.data(), static_cast<std::size_t>(bytes));
        !done.ok())
      return done;
    if (auto const done = memory.mark(device_); !done.ok()) return done;
    // Of what a changed sequence holds first: a fill may be newer.
    if (auto const done = start<move_kernel>(staged.moves()); !done.ok()) return done;
    if (auto const done = start<fill_kernel>(staged.fills()); !done.ok()) return done;
    if (auto const done = start<copy_kernel>(staged.copies()); !done.ok()) return done;
    note_versions(s);
    return {};
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

  /// What it asks: `step::queries` with pointers of the device, and with how many live rows there
  /// are, so that a kernel can refuse more than its bounds.
  template <class Storage, class Kernel, class T>
  result<query_rows<T>> queries(step<Storage, Kernel>& s, layer_id l,
                                layer_queries<T> const& given) const noexcept {
    auto rows = s.queries(l, given);
    if (!rows.ok()) return rows;
    auto const offsets = s.live_offsets(l);
    rows->known_rows = offsets.empty() ? 0 : offsets.back();
    rows->known_rows_per_seq = 0;
    for (std::size_t i = 1; i < offsets.size(); ++i)
      rows->known_rows_per_seq = larger(rows->known_rows_per_seq, offsets[i] - offsets[i - 1]);
    rows->offsets = at(layout_.of_layer(l, &layer_tables::offsets));
    rows->positions = at(layout_.of_layer(l, &layer_tables::live_positions));
    return rows;
  }

  /// `step::keep_live` on the device: moves the live rows of x, [input rows, width], to its front,
  /// [live rows, width], in one launch; in none where all of them live. In place: what lay behind
  /// them is lost.
  template <class Storage, class Kernel, class T>
  status keep_live(step<Storage, Kernel> const& s, layer_id l, T* x,
                   std::int64_t width) const noexcept {
    if (!s.state().ok()) return s.state();
    return keep(s.input_rows(l), s.live_rows(l), layout_.of_layer(l, &layer_tables::kept), x,
                width);
  }
  /// `step::keep_logits`: of x, [live rows of the last layer, width], those that want logits.
  template <class Storage, class Kernel, class T>
  status keep_logits(step<Storage, Kernel> const& s, layer_id last, T* x,
                     std::int64_t width) const noexcept {
    if (!s.state().ok()) return s.state();
    return keep(s.live_rows(last), s.logit_rows(), layout_.kept_logits(), x, width);
  }

  /// All input rows of a layer, for `append`: heads is [input rows, kv_heads, dim], rows
  /// `row_stride` elements apart (0: without gaps). Rows whose plan does not store the layer are
  /// passed by; where none does, there are no rows at all, and nothing is launched, unless
  /// `always`: for a graph that will serve batches that do.
  ///
  /// Marks the rows as stored at once, before anything is launched: a step whose append was
  /// refused, or never called, is not to be committed.
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
  static constexpr std::int64_t alignment = 64;

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
  template <class Step>
  void note_versions(Step const& s) noexcept {
    if constexpr (versioned_storage<std::remove_cvref_t<decltype(s.storage())>>)
      for (auto const& g : s.growths())
        versions_[g.sequence.index] = s.storage().table_version(g.sequence);
  }

  /// Numbers of the step's tables on the device.
  std::int32_t const* at(std::int64_t number) const noexcept {
    return reinterpret_cast<std::int32_t const*>(step_.data()) + number;
  }

  template <class Body, class Entry>
  status start(entry_list<Entry> const& all) const noexcept {
    if (all.count == 0) return {};
    auto const blocks = smaller<std::int64_t>(all.count, 256);
    return device_.launcher().template start<Body>(blocks, 0, all);
  }

  template <class T>
  status keep(std::span<std::int32_t const> from, std::span<std::int32_t const> kept,
              std::int64_t table, T* x, std::int64_t width) const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    if (from.size() == kept.size()) return {};
    auto const count = static_cast<std::int32_t>(kept.size());
    auto const bytes = width * static_cast<std::int64_t>(sizeof(T));
    bool const chunks = bytes % 16 == 0 && reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
    if (!chunks) return keep(kept_rows<T>{x, width, at(table), count});
    return keep(kept_rows<chunk>{reinterpret_cast<chunk*>(x), bytes / 16, at(table), count});
  }
  template <class Unit>
  status keep(kept_rows<Unit> const& rows) const noexcept {
    if (rows.count == 0 || rows.width == 0) return {};
    auto const blocks = ceil_divide<std::int64_t>(rows.width, keep_kernel::threads);
    return device_.launcher().template start<keep_kernel>(smaller<std::int64_t>(blocks, 1024), 0,
                                                          rows);
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
  void translate(T const*& host) const noexcept {
    host = lasting_.on_device(host);
  }

  Device device_;
  typename Device::buffer tables_, step_;
  typename Device::staging staging_[2];
  std::int32_t turn_ = 0;
  std::int64_t room_ = 0;
  step_layout layout_;  // of the step that was sent last
  lasting_tables lasting_;
  strata::detail::array<std::uint64_t> versions_;  // [max_sequences], of the rows that were sent
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
