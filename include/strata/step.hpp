// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A step: one pass of a batch through all layers of a model that is being served. It reserves
// everything or nothing, and nothing is visible before commit (law 10).
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>

#include <strata/attention/kernel.hpp>
#include <strata/cache/storage.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/detail/step_scratch.hpp>
#include <strata/executor.hpp>
#include <strata/plan.hpp>

STRATA_NAMESPACE_BEGIN

/// Which of a sequence's new rows need logits. The others need no work from the sequence's tail on:
/// there a caller who asks for fewer than all passes the live rows only, see `step::live_rows`.
enum class logits : std::int32_t { none, last, all };

/// One sequence's part of a batch.
struct batch_entry {
  sequence_id sequence = no_sequence;
  std::int32_t new_tokens = 1;
  logits wanted = logits::all;
  std::int32_t first_position = continue_position;
};

template <cache_storage Storage, class Kernel>
class stack;

/// A batch on its way through the layers. Destroyed without commit, it never happened. Threads: any
/// call but `commit` at the same time, for layers that exist; `attend` with outputs and workspaces
/// that do not overlap, once the rows that it reads are stored.
template <cache_storage Storage, class Kernel>
class step {
 public:
  using k_codec = typename Storage::k_codec;
  using v_codec = typename Storage::v_codec;
  using view_type = kv_view<k_codec, v_codec>;

  step(step const&) = delete;
  step& operator=(step const&) = delete;
  ~step() { abandon(); }

  /// Why the step cannot run, for instance how many blocks are missing. Once refused, or once
  /// committed, every other call refuses too and changes nothing.
  status const& state() const noexcept { return state_; }

  /// Rows of the whole batch: sequences in batch order, tokens in order.
  std::int32_t num_rows() const noexcept { return reserved_ ? scratch_.rows.num_rows() : 0; }
  /// [num_rows], the position of each row.
  std::span<std::int32_t const> positions() const noexcept { return alive_at(-1).positions; }

  /// Batch rows that enter a layer: its norm and its K/V projections run on these.
  std::span<std::int32_t const> input_rows(layer_id layer) const noexcept {
    return alive_at(layer.index - 1).rows;
  }
  /// Batch rows whose queries run at a layer, and that leave it: a part of input_rows, fewer only
  /// at the beginning of a sequence's tail. Those of the last layer are the ones that want logits,
  /// unless a sequence has no tail at all.
  std::span<std::int32_t const> live_rows(layer_id layer) const noexcept {
    return alive_at(layer.index).rows;
  }
  /// [live rows], the position of each live row.
  std::span<std::int32_t const> live_positions(layer_id layer) const noexcept {
    return alive_at(layer.index).positions;
  }
  /// Batch rows that want logits.
  std::span<std::int32_t const> logit_rows() const noexcept { return alive_at(max_layers).rows; }

  /// Moves the live rows of x, [input rows, width], to its front: [live rows, width].
  template <class T>
  void keep_live(layer_id layer, T* x, std::int64_t width) const noexcept {
    keep(input_rows(layer), live_rows(layer), x, width);
  }
  /// Moves the rows that want logits to the front of x, [live rows of the last layer, width].
  template <class T>
  void keep_logits(layer_id last, T* x, std::int64_t width) const noexcept {
    keep(live_rows(last), logit_rows(), x, width);
  }

  /// Runs of input rows whose K (or V) this layer stores; empty where all sequences follow, and for
  /// a layer without K/V. Valid until the step ends.
  std::span<kv_run<k_codec> const> k_writers(layer_id layer) noexcept {
    if (!note(check_layer(layer))) return {};
    return scratch_.k.runs_of(layer);
  }
  std::span<kv_run<v_codec> const> v_writers(layer_id layer) noexcept {
    if (!note(check_layer(layer))) return {};
    return scratch_.v.runs_of(layer);
  }

  /// What a layer reads: every sequence its own source, new tokens included. Valid until the step
  /// ends. `attend` is a kernel's call with this and `queries`.
  result<view_type> view(layer_id layer) noexcept {
    if (auto const s = check_readable(layer); !s.ok()) return s;
    auto const& kv = storage_.classes()[layer].kv;
    view_type v;
    v.k = scratch_.k.sources[layer.index];
    v.v = scratch_.v.sources[layer.index];
    auto const positions = storage_.positions();
    v.rows.num_seqs = scratch_.num_seqs;
    v.rows.lengths = scratch_.lengths.data();
    v.rows.positions = positions.data;
    v.rows.position_seq_stride = positions.stride;
    v.rows.position_row_of = scratch_.ids.data();
    v.kv_heads = kv.kv_heads;
    v.k_dim = kv.k_dim;
    v.v_dim = kv.v_dim;
    return v;
  }

  /// What a layer asks: its live rows, where each sequence's begin and at which positions they
  /// stand, under the rule's window or the layer's, whichever is narrower. Valid until the step
  /// ends. Refuses where rows that are read were not stored in this step, or where the number of
  /// rows is given and another one. Once the rows are stored, threads may ask at the same time, and
  /// all get the same answer; those of an engine that enter each operation as (ith, nth) do
  ///
  ///     auto const keys = step.view(layer);
  ///     auto const rows = step.queries(layer, queries);
  ///     if (keys.ok() && rows.ok()) kernel.partial({ith, nth}, *rows, *keys, workspace);
  ///     barrier();
  ///     if (keys.ok() && rows.ok()) kernel.combine({ith, nth}, *rows, *keys, workspace);
  template <class T>
  result<query_rows<T>> queries(layer_id layer, layer_queries<T> const& given) noexcept {
    if (auto const s = check_readable(layer); !s.ok()) return s;
    auto const live = std::ssize(live_rows(layer));
    if (given.num_rows >= 0 && given.num_rows != live)
      return status{errc::num_rows_mismatch, layer, given.num_rows, live};
    if (auto const s = scratch_.check_sources(storage_, layer); !s.ok()) return s;
    return rows_of(layer, given);
  }

  /// Bytes of workspace that `attend` needs for these queries, split into num_shares.
  template <class T>
  result<std::int64_t> workspace_bytes(layer_id layer, layer_queries<T> const& queries,
                                       std::int32_t num_shares) noexcept {
    if (num_shares < 1) return status{errc::bad_share, layer, 0, num_shares};
    auto const v = view(layer);
    if (!v.ok()) return v.state();
    return kernel_.workspace_bytes(rows_of(layer, queries), *v, num_shares);
  }

  /// Attention of a layer's live rows, one call whatever the depths of the sequences. Refuses what
  /// `view`, `queries` and the kernel refuse. The workspace may start anywhere. T is deduced from
  /// queries that have a name and a type:
  ///
  ///     layer_queries<float> const queries{.q = q, .out = out, .q_heads = 32};
  ///     auto const done = step.attend(exec, layer, queries, workspace);
  template <executor Exec, class T>
  status attend(Exec& exec, layer_id layer, layer_queries<T> const& given,
                std::span<std::byte> workspace = {}) noexcept {
    static_assert(!on_device<Storage>,
                  "strata: kernels of a device read a step by its copy there: see step_mirror.cuh");
    static_assert(attention_kernel<Kernel, T, view_type>,
                  "strata: the stack's kernel cannot read the storage's codecs with queries of T");
    auto const keys = view(layer);
    if (!keys.ok()) return keys.state();
    auto const rows = queries(layer, given);
    if (!rows.ok()) return rows.state();
    auto s = detail::attend_all(exec, kernel_, *rows, *keys, workspace);
    if (!s.ok() && !s.layer.valid()) s.layer = layer;
    return s;
  }

  /// Where the K (or V) of a layer's input rows goes, whether or not anybody stores them: for append
  /// kernels that take all of `input_rows(layer)` in one launch and pass by rows of -1. Of a layer
  /// without K/V it is empty. The runs of `k_writers` are then to be marked.
  append_rows k_destination(layer_id layer) const noexcept {
    return check_readable(layer).ok() ? scratch_.k.destinations[layer.index] : append_rows{};
  }
  append_rows v_destination(layer_id layer) const noexcept {
    return check_readable(layer).ok() ? scratch_.v.destinations[layer.index] : append_rows{};
  }
  /// [num_rows], which of the batch's sequences a row belongs to, and which of its tokens it is.
  std::span<std::int32_t const> row_sequences() const noexcept {
    return {scratch_.rows.sequences(), static_cast<std::size_t>(num_rows())};
  }
  std::span<std::int32_t const> row_tokens() const noexcept {
    return reserved_ ? scratch_.token_of.first(num_rows()) : std::span<std::int32_t const>{};
  }
  /// [sequences + 1], where each one's live rows begin.
  std::span<std::int32_t const> live_offsets(layer_id layer) const noexcept {
    return alive_at(layer.index).offsets;
  }
  /// [input rows], the position of each.
  std::span<std::int32_t const> input_positions(layer_id layer) const noexcept {
    return alive_at(layer.index - 1).positions;
  }
  /// What the batch's sequences grow by, with their first positions. [sequences]
  std::span<growth const> growths() const noexcept {
    return reserved_ ? scratch_.growths.first(scratch_.num_seqs) : std::span<growth const>{};
  }
  Storage const& storage() const noexcept { return storage_; }

  /// Lengths and next positions advance, once. Refuses where a row of a stored layer was not
  /// stored, whatever the reason, and where a call named a layer that does not exist: what it meant
  /// to store is missing.
  status commit() noexcept {
    if (!state_.ok()) return state_;
    if (!misuse_.ok()) return misuse_;
    if (auto const s = scratch_.check_all(storage_.classes().num_layers()); !s.ok()) return s;
    storage_.commit();
    end();
    return {};
  }

 private:
  friend class stack<Storage, Kernel>;
  using scratch_type = detail::step_scratch<k_codec, v_codec>;

  step(Storage& storage, Kernel const& kernel, scratch_type& scratch,
       std::span<batch_entry const> batch) noexcept
      : storage_(storage), kernel_(kernel), scratch_(scratch), state_(reserve(batch)) {
    if (!state_.ok()) return;
    state_ = lay_out(batch);
    if (!state_.ok()) abandon();
  }

  void abandon() noexcept {
    if (!reserved_) return;
    storage_.abandon();
    end();
  }

  /// From here on every call refuses, and runs that were kept write nothing.
  void end() noexcept {
    reserved_ = false;
    ++scratch_.notes.current_step;
    if (state_.ok()) state_ = {errc::no_step};
  }

  status reserve(std::span<batch_entry const> batch) noexcept {
    if (scratch_.busy()) return {errc::step_in_progress};
    auto const count = static_cast<std::int64_t>(batch.size());
    if (auto const s = scratch_.grow_sequences(count); !s.ok()) return s;
    std::int64_t rows = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      auto const& entry = batch[static_cast<std::size_t>(i)];
      if (entry.new_tokens < 0) return {errc::bad_new_tokens, no_layer, entry.new_tokens, 0};
      scratch_.growths[i] = {entry.sequence, entry.new_tokens, entry.first_position};
      rows += entry.new_tokens;
    }
    constexpr auto most_rows = (std::numeric_limits<std::int32_t>::max)();
    if (rows > most_rows) return {errc::too_many_rows, no_layer, rows, most_rows};
    if (auto const s = storage_.reserve(scratch_.growths.first(count)); !s.ok()) return s;
    reserved_ = true;
    ++scratch_.notes.current_step;
    return {};
  }

  status lay_out(std::span<batch_entry const> batch) noexcept {
    for (std::size_t i = 0; i < batch.size(); ++i) {
      auto const& [id, new_tokens, wanted, first_position] = batch[i];
      auto const at = static_cast<std::int64_t>(i);
      auto const logits_from = wanted == logits::all    ? 0
                               : wanted == logits::last ? new_tokens - 1
                                                        : new_tokens;
      auto const position =
          first_position == continue_position ? storage_.next_position(id) : first_position;
      auto const tail = storage_.plan(id).tail_begin;
      scratch_.layout[at] = detail::batch_rows::sequence{new_tokens, logits_from, position, tail};
      scratch_.lengths[at] = storage_.length(id) + new_tokens;
      scratch_.growths[at].first_position = position;
      scratch_.ids[at] = id.index;
    }
    return scratch_.lay_out(storage_, static_cast<std::int32_t>(batch.size()));
  }

  status check_layer(layer_id layer) const noexcept {
    if (!state_.ok()) return state_;
    auto const num_layers = storage_.classes().num_layers();
    if (!layer.valid() || layer.index >= num_layers)
      return {errc::layer_out_of_range, layer, layer.index, num_layers};
    return {};
  }
  status check_readable(layer_id layer) const noexcept {
    if (auto const s = check_layer(layer); !s.ok()) return s;
    if (!storage_.classes()[layer].has_kv) return {errc::source_without_kv, layer, layer.index, 0};
    return {};
  }

  /// Remembers the first misuse of a call that returns no status, for `commit`.
  bool note(status const& s) noexcept {
    if (!s.ok() && misuse_.ok()) misuse_ = s;
    return s.ok();
  }

  detail::row_set alive_at(std::int32_t layer) const noexcept {
    return reserved_ ? scratch_.rows.alive_at(layer) : detail::row_set{};
  }

  template <class T>
  query_rows<T> rows_of(layer_id layer, layer_queries<T> const& queries) const noexcept {
    auto const live = alive_at(layer.index);
    auto q = detail::whole_rows(queries, storage_.classes()[layer].window);
    q.offsets = live.offsets.data();
    q.positions = live.positions.data();
    q.num_seqs = scratch_.num_seqs;
    return q;
  }

  template <class T>
  static void keep(std::span<std::int32_t const> from, std::span<std::int32_t const> kept, T* x,
                   std::int64_t width) noexcept {
    if (from.size() == kept.size()) return;
    std::size_t at = 0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      while (from[at] != kept[i]) ++at;
      if (at == i) continue;
      for (std::int64_t j = 0; j < width; ++j)
        x[static_cast<std::int64_t>(i) * width + j] = x[static_cast<std::int64_t>(at) * width + j];
    }
  }

  Storage& storage_;
  Kernel const& kernel_;
  scratch_type& scratch_;
  bool reserved_ = false;
  status misuse_;
  status state_;
};

STRATA_NAMESPACE_END
