// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a step writes down before the first layer: which rows are alive where, and for every layer
// whom each sequence reads and where it writes. Laid out once per step, for all layers, so that
// views and writers stay valid until the step ends. It belongs to the stack and is kept between
// steps: decoding allocates nothing once the largest batch has been seen.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include <strata/cache/storage.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/batch_rows.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// The K or the V side of a step.
template <class Codec>
struct step_side {
  array<std::int32_t> read_row;     // [num_layers, num_seqs]
  array<std::int32_t> write_row;    // [num_layers, num_seqs]
  array<tensor_blocks> sources;     // [num_layers], what is read; row_of: read_row
  array<append_rows> destinations;  // [num_layers], what is written; row_of: write_row
  array<kv_run<Codec>> runs;        // [num_layers * num_seqs], those of a layer adjacent
  array<std::int32_t> run_begin;    // [num_layers + 1]
  array<std::uint8_t> stored;       // a row_state per row of all runs, in their order
  array<std::int64_t> flag_begin;   // [num_layers + 1], where a layer's bytes begin in `stored`
  array<std::uint8_t> complete;     // [num_layers], whether all of them were found set

  status grow(std::int64_t num_layers, std::int64_t num_seqs) noexcept {
    auto const cells = num_layers * num_seqs;
    status const outcomes[] = {read_row.grow(cells),      write_row.grow(cells),
                               sources.grow(num_layers),  destinations.grow(num_layers),
                               runs.grow(cells),          run_begin.grow(num_layers + 1),
                               complete.grow(num_layers), flag_begin.grow(num_layers + 1)};
    for (auto const& outcome : outcomes)
      if (!outcome.ok()) return outcome;
    return {};
  }

  std::span<kv_run<Codec> const> runs_of(layer_id layer) const noexcept {
    auto const first = run_begin[layer.index];
    return {runs.data() + first, static_cast<std::size_t>(run_begin[layer.index + 1] - first)};
  }

  /// Gives every run its bytes, none of them set.
  status lay_out_flags(std::int32_t num_layers, step_notes& notes) noexcept {
    flag_begin[0] = 0;
    for (layer_id l{0}; num_layers > l.index; ++l.index) {
      complete[l.index] = 0;
      auto count = flag_begin[l.index];
      for (auto const& run : runs_of(l)) count += run.num_rows();
      flag_begin[l.index + 1] = count;
    }
    if (auto const s = stored.assign_first(flag_begin[num_layers], step_notes::missing); !s.ok())
      return s;
    auto* flags = stored.data();
    for (std::int32_t i = 0; i < run_begin[num_layers]; ++i) {
      auto const& run = runs[i];
      auto const num_rows = run.num_rows();
      runs[i] = {run.destination(), run.first_row(), num_rows, notes, flags};
      flags += num_rows;
    }
    return {};
  }

  /// Refuses where rows of a layer were not stored. They are counted until all of them are; by
  /// several threads at once, where they are an engine's own and each asks for itself.
  status check_stored(layer_id layer, step_notes const& notes) noexcept {
    auto& done = complete[layer.index];
    if (__atomic_load_n(&done, __ATOMIC_RELAXED) != 0) return {};
    std::int64_t rows = 0, missing = 0;
    for (auto const& run : runs_of(layer))
      for (std::int32_t i = 0; i < run.num_rows(); ++i) {
        auto const state = stored[flag_begin[layer.index] + rows++];
        if (state == step_notes::beyond_rope)
          return {errc::rope_too_short, layer, run.position(i), notes.rope_positions};
        missing += state != step_notes::stored;
      }
    if (missing > 0) return {errc::rows_not_stored, layer, missing, rows};
    __atomic_store_n(&done, std::uint8_t{1}, __ATOMIC_RELAXED);
    return {};
  }
};

template <class KCodec, class VCodec>
struct step_scratch {
  array<growth> growths;               // [num_seqs]
  array<batch_rows::sequence> layout;  // [num_seqs]
  array<std::int32_t> lengths;         // [num_seqs], the step's own tokens included
  array<std::int32_t> ids;             // [num_seqs]
  array<std::int32_t> token_of;        // [batch rows], index among the sequence's tokens
  batch_rows rows;
  step_side<KCodec> k;
  step_side<VCodec> v;
  std::int32_t num_seqs = 0;
  step_notes notes;

  bool busy() const noexcept { return notes.current_step % 2 != 0; }

  status grow_sequences(std::int64_t count) noexcept {
    status const outcomes[] = {growths.grow(count), layout.grow(count), lengths.grow(count),
                               ids.grow(count)};
    for (auto const& outcome : outcomes)
      if (!outcome.ok()) return outcome;
    return {};
  }

  /// Lays out everything from `layout`, `lengths` and `ids`.
  template <class Storage>
  status lay_out(Storage& storage, std::int32_t count) noexcept {
    num_seqs = count;
    if (auto const s = rows.build(layout.first(count)); !s.ok()) return s;
    if (auto const s = token_of.grow(rows.num_rows()); !s.ok()) return s;
    std::int32_t row = 0;
    for (std::int32_t s = 0; s < count; ++s)
      for (std::int32_t i = 0; i < layout[s].num_rows; ++i)
        token_of[row++] = lengths[s] - layout[s].num_rows + i;

    auto const num_layers = storage.classes().num_layers();
    if (auto const s = k.grow(num_layers, count); !s.ok()) return s;
    if (auto const s = v.grow(num_layers, count); !s.ok()) return s;
    if (auto const s = lay_out_side(storage, k, &layer_step::k); !s.ok()) return s;
    return lay_out_side(storage, v, &layer_step::v);
  }

  /// Refuses where a sequence reads rows at a layer that this step should have stored and did not.
  template <class Storage>
  status check_sources(Storage const& storage, layer_id l) noexcept {
    for (std::int32_t s = 0; s < num_seqs; ++s) {
      auto const& read = storage.plan({ids[s]})[l];
      if (auto const outcome = k.check_stored(read.k.source, notes); !outcome.ok()) return outcome;
      if (auto const outcome = v.check_stored(read.v.source, notes); !outcome.ok()) return outcome;
    }
    return {};
  }
  /// The same for all layers.
  status check_all(std::int32_t num_layers) noexcept {
    for (layer_id l{0}; num_layers > l.index; ++l.index) {
      if (auto const s = k.check_stored(l, notes); !s.ok()) return s;
      if (auto const s = v.check_stored(l, notes); !s.ok()) return s;
    }
    return {};
  }

 private:
  template <class Storage, class Codec>
  status lay_out_side(Storage& storage, step_side<Codec>& side,
                      route layer_step::* column) noexcept {
    auto const& classes = storage.classes();
    side.run_begin[0] = 0;
    for (layer_id l{0}; classes.num_layers() > l.index; ++l.index) {
      auto count = side.run_begin[l.index];
      if (classes[l].has_kv) {
        if (auto const s = point_reader(storage, side, column, l); !s.ok()) return s;
        point_writer(storage, side, column, l);
        add_runs(storage, side, column, l, count);
      }
      side.run_begin[l.index + 1] = count;
    }
    return side.lay_out_flags(classes.num_layers(), notes);
  }

  template <class Storage>
  static writable_blocks blocks_of(Storage& storage, route layer_step::* column, layer_id source) {
    return column == &layer_step::k ? storage.k_blocks(source) : storage.v_blocks(source);
  }
  template <class Storage>
  static std::int32_t row_of(Storage& storage, route layer_step::* column, sequence_id id,
                             layer_id source) {
    return column == &layer_step::k ? storage.k_row(id, source) : storage.v_row(id, source);
  }

  /// The scales of a layer's KV heads, where the storage sets them.
  template <class Storage>
  static float const* scales_of(Storage const& storage, route layer_step::* column,
                                layer_id l) noexcept {
    if constexpr (head_scaled_storage<Storage>)
      return column == &layer_step::k ? storage.k_head_scales(l) : storage.v_head_scales(l);
    return nullptr;
  }

  /// Whom layer `l` of every sequence reads. All of it must lie in the same blocks.
  template <class Storage, class Codec>
  status point_reader(Storage& storage, step_side<Codec>& side, route layer_step::* column,
                      layer_id l) noexcept {
    auto* const rows_read = side.read_row.data() + std::int64_t{l.index} * num_seqs;
    layer_id first = no_layer;
    writable_blocks blocks;
    for (std::int32_t s = 0; s < num_seqs; ++s) {
      auto const source = (storage.plan({ids[s]})[l].*column).source;
      rows_read[s] = lengths[s] == 0 ? -1 : row_of(storage, column, {ids[s]}, source);
      if (lengths[s] == 0 || source == first) continue;
      auto const other = blocks_of(storage, column, source);
      if (first.valid() && !(other == blocks))
        return {errc::separate_allocations, l, source.index, first.index};
      first = source;
      blocks = other;
    }
    // A batch of empty sequences reads nothing, but has a view like any other.
    if (!first.valid() && num_seqs > 0)
      blocks = blocks_of(storage, column, (storage.plan({ids[0]})[l].*column).source);
    side.sources[l.index] = blocks;
    side.sources[l.index].row_of = rows_read;
    side.sources[l.index].row_per_head = false;
    return {};
  }

  /// Where layer `l` of every sequence that stores it writes.
  template <class Storage, class Codec>
  void point_writer(Storage& storage, step_side<Codec>& side, route layer_step::* column,
                    layer_id l) noexcept {
    auto* const rows_written = side.write_row.data() + std::int64_t{l.index} * num_seqs;
    for (std::int32_t s = 0; s < num_seqs; ++s) {
      bool const stores = lengths[s] > 0 && (storage.plan({ids[s]})[l].*column).stored;
      rows_written[s] = stores ? row_of(storage, column, {ids[s]}, l) : -1;
    }
    auto const& kv = storage.classes()[l].kv;
    auto blocks = blocks_of(storage, column, l);
    blocks.row_of = rows_written;
    blocks.row_per_head = false;
    auto const entering = rows.alive_at(l.index - 1);
    side.destinations[l.index] = {blocks,
                                  entering.rows.data(),
                                  rows.sequences(),
                                  token_of.data(),
                                  kv.kv_heads,
                                  column == &layer_step::k ? kv.k_dim : kv.v_dim,
                                  entering.positions.data(),
                                  scales_of(storage, column, l),
                                  on_device<Storage>};
  }

  /// Runs of neighbouring sequences that store layer `l`.
  template <class Storage, class Codec>
  void add_runs(Storage const& storage, step_side<Codec>& side, route layer_step::* column,
                layer_id l, std::int32_t& count) noexcept {
    auto const offsets = rows.alive_at(l.index - 1).offsets;
    bool open = false;  // the run before ends where this sequence begins
    for (std::int32_t s = 0; s < num_seqs; ++s) {
      auto first = offsets[static_cast<std::size_t>(s)];
      auto num_rows = offsets[static_cast<std::size_t>(s) + 1] - first;
      bool const stores = (storage.plan({ids[s]})[l].*column).stored;
      if (num_rows == 0) continue;
      if (stores && open) {
        first = side.runs[--count].first_row();
        num_rows += side.runs[count].num_rows();
      }
      if (stores)
        side.runs[count++] = {side.destinations[l.index], first, num_rows, notes, nullptr};
      open = stores;
    }
  }
};

}  // namespace detail

STRATA_NAMESPACE_END
