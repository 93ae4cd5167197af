// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The only door into a cache: runs of new rows whose plan stores the layer at hand (law 4).
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/rope.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>

STRATA_NAMESPACE_BEGIN

/// Where a step's new rows of one layer's K (or V) go; plain data, for append kernels of one's own,
/// after which `kv_run::mark_stored` tells the step.
/// Input row r of the layer is batch row `rows[r]`; batch row b is token `token[b]` of the batch's
/// sequence `sequence[b]`.
struct append_rows {
  writable_blocks blocks;                  ///< row_of: [num_seqs], -1 where a plan does not store
  std::int32_t const* rows = nullptr;      ///< [input rows]
  std::int32_t const* sequence = nullptr;  ///< [batch rows]
  std::int32_t const* token = nullptr;     ///< [batch rows]
  std::int32_t kv_heads = 0;
  std::int32_t dim = 0;
  std::int32_t const* positions = nullptr;  ///< [input rows]
  /// [kv_heads], of a head-scaled codec, or null: all 1. Written at `blocks.scales_at` of each row.
  float const* head_scales = nullptr;
  bool on_device = false;  ///< of which the host writes nothing
};

/// What rows of K and V may be made of, for a codec to encode them: float and double always.
template <class T, class Codec>
concept storable = std::floating_point<T> ||
                   (half_element<T> && requires(T const* in, std::int32_t n, std::byte* row) {
                     { Codec::encode(in, n, row, row) } noexcept;
                   });

/// What rows of T are rotated in.
template <class T>
using rotated_t = std::conditional_t<std::same_as<T, double>, double, float>;

namespace detail {

/// Puts a KV head's scale where it belongs, unless it is there: threads that store rows of a block
/// may be here at once, all with the same scale, and need not take the line from each other.
inline void put_head_scale(std::byte* at, float scale) noexcept {
  auto* const to = reinterpret_cast<std::uint32_t*>(at);
  auto const bits = bit_cast<std::uint32_t>(scale);
  if (__atomic_load_n(to, __ATOMIC_RELAXED) != bits) __atomic_store_n(to, bits, __ATOMIC_RELAXED);
}

/// What a step and its runs tell each other.
struct step_notes {
  /// Of a row in `stored`: not yet; it is; its position lies beyond the RoPE table.
  enum row_state : std::uint8_t { missing, stored, beyond_rope };

  std::uint64_t current_step = 0;   ///< odd while a step is in progress
  std::int32_t rope_positions = 0;  ///< of a table that was too short
};

}  // namespace detail

/// Adjacent input rows of a layer whose K (or V) must be computed and stored. Project them with one
/// matrix product, then store each. A run belongs to its step: kept longer, it writes nothing. The
/// step notes which rows were stored: memory is used again, and a row left out would be another
/// sequence's.
/// Threads: different rows may be stored at the same time, by any runs of the step.
template <kv_codec Codec>
class kv_run {
 public:
  /// Runs come from `step::k_writers` and `step::v_writers`.
  /// stored: [num_rows], a byte per row, so that threads which store different rows share none.
  constexpr kv_run(append_rows const& rows, std::int32_t first_row, std::int32_t num_rows,
                   detail::step_notes& notes, std::uint8_t* stored) noexcept
      : rows_(&rows),
        notes_(&notes),
        stored_(stored),
        step_(notes.current_step),
        first_row_(first_row),
        num_rows_(num_rows) {}

  /// Index of the first row, among the layer's input rows.
  constexpr std::int32_t first_row() const noexcept { return first_row_; }
  constexpr std::int32_t num_rows() const noexcept { return num_rows_; }
  constexpr append_rows const& destination() const noexcept { return *rows_; }
  /// Where row i of the run stands in its sequence.
  constexpr std::int32_t position(std::int32_t i) const noexcept {
    return rows_->positions[first_row_ + i];
  }

  /// Writes row i of the run, 0 <= i < num_rows(). heads: [kv_heads, dim]. Different rows may be
  /// stored by different threads.
  template <storable<Codec> T>
  void store(std::int32_t i, T const* heads) const noexcept {
    bool const usable = may_store(i);
    STRATA_ASSERT(usable);
    if (!usable) return;
    for (std::int32_t h = 0; h < rows_->kv_heads; ++h)
      encode(i, h, heads + std::int64_t{h} * rows_->dim);
    stored_[i] = detail::step_notes::stored;
  }

  /// The same for a row of K before RoPE: each head is rotated by the row's own position between
  /// reading and encoding it, in float (double rows in double), with the bits that it has when
  /// `rope.rotate` comes first and `store` after. `rope` is one that `check` accepts. A row whose
  /// position lies beyond its table is not stored, and `attend` and `commit` refuse with that
  /// position: threads that store rows have nobody to return a status to.
  template <storable<Codec> T>
  void store_rotated(std::int32_t i, T const* heads,
                     rotary<rotated_t<T>> const& rope) const noexcept {
    auto const dim = rows_->dim;
    bool const usable = may_store(i) && rows_->positions != nullptr && rope.covers(dim, 0);
    STRATA_ASSERT(usable);
    if (!usable) return;
    if (!rope.covers(dim, position(i))) {
      // More than one thread may come here. Which of their tables is named does not matter.
      __atomic_store_n(&notes_->rope_positions, rope.positions, __ATOMIC_RELAXED);
      stored_[i] = detail::step_notes::beyond_rope;
      return;
    }
    alignas(64) rotated_t<T> head[rotary<rotated_t<T>>::max_dim];
    for (std::int32_t h = 0; h < rows_->kv_heads; ++h) {
      T const* const in = heads + std::int64_t{h} * dim;
      if constexpr (half_element<T>) {
        float wide[rotary<float>::max_dim];
        for (std::int32_t j = 0; j < dim; ++j) wide[j] = to_float(in[j]);
        rope.rotate(wide, head, dim, position(i));
      } else {
        rope.rotate(in, head, dim, position(i));
      }
      encode(i, h, head);
    }
    stored_[i] = detail::step_notes::stored;
  }

  /// Writes all rows of the run. rows: [num_rows, kv_heads, dim].
  template <storable<Codec> T>
  void store_all(T const* rows) const noexcept {
    auto const width = std::int64_t{rows_->kv_heads} * rows_->dim;
    for (std::int32_t i = 0; i < num_rows_; ++i) store(i, rows + i * width);
  }

  /// Says that all rows of the run were written through `destination()`.
  void mark_stored() const noexcept {
    if (notes_->current_step != step_) return;
    for (std::int32_t i = 0; i < num_rows_; ++i) stored_[i] = detail::step_notes::stored;
  }

 private:
  bool may_store(std::int32_t i) const noexcept {
    return notes_->current_step == step_ && i >= 0 && i < num_rows_ && !rows_->on_device;
  }

  template <class T>
  void encode(std::int32_t i, std::int32_t h, T const* head) const noexcept {
    auto const& to = *rows_;
    auto const batch_row = to.rows[first_row_ + i];
    auto const token = to.token[batch_row];
    auto const row = to.blocks.row(to.sequence[batch_row], h, to.kv_heads);
    auto* const at = to.blocks.at(row, h, token);
    auto* const scales = to.blocks.scales_at(row, h, token);
    if constexpr (head_scaled_codec<Codec>) {
      // Encoded with a scale of its own: the one in memory another thread may be writing.
      float scale = to.head_scales == nullptr ? 1 : to.head_scales[h];
      detail::put_head_scale(scales, scale);
      Codec::encode(head, to.dim, at, reinterpret_cast<std::byte*>(&scale));
    } else {
      Codec::encode(head, to.dim, at, scales);
    }
  }

  append_rows const* rows_;
  detail::step_notes* notes_;  // of the step in progress now
  std::uint8_t* stored_;       // [num_rows], a detail::step_notes::row_state each
  std::uint64_t step_;         // the step that this run belongs to
  std::int32_t first_row_;
  std::int32_t num_rows_;
};

STRATA_NAMESPACE_END
