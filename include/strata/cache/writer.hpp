// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The only door into a cache: runs of new rows whose plan stores the layer at hand (law 4).
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
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
};

/// What rows of K and V may be made of, for a codec to encode them: float and double always.
template <class T, class Codec>
concept storable = std::floating_point<T> ||
                   (half_element<T> && requires(T const* in, std::int32_t n, std::byte* row) {
                     { Codec::encode(in, n, row, row) } noexcept;
                   });

/// Adjacent input rows of a layer whose K (or V) must be computed and stored. Project them with one
/// matrix product, then store each. A run belongs to its step: kept longer, it writes nothing. The
/// step notes which rows were stored: memory is used again, and a row left out would be another
/// sequence's.
template <kv_codec Codec>
class kv_run {
 public:
  /// Runs come from `step::k_writers` and `step::v_writers`.
  /// stored: [num_rows], a byte per row, so that threads which store different rows share none.
  constexpr kv_run(append_rows const& rows, std::int32_t first_row, std::int32_t num_rows,
                   std::uint64_t const& current_step, std::uint8_t* stored) noexcept
      : rows_(&rows),
        current_step_(&current_step),
        stored_(stored),
        step_(current_step),
        first_row_(first_row),
        num_rows_(num_rows) {}

  /// Index of the first row, among the layer's input rows.
  constexpr std::int32_t first_row() const noexcept { return first_row_; }
  constexpr std::int32_t num_rows() const noexcept { return num_rows_; }
  constexpr append_rows const& destination() const noexcept { return *rows_; }

  /// Writes row i of the run, 0 <= i < num_rows(). heads: [kv_heads, dim]. Different rows may be
  /// stored by different threads.
  template <storable<Codec> T>
  void store(std::int32_t i, T const* heads) const noexcept {
    bool const usable = *current_step_ == step_ && i >= 0 && i < num_rows_;
    STRATA_ASSERT(usable);
    if (!usable) return;
    auto const& to = *rows_;
    auto const batch_row = to.rows[first_row_ + i];
    auto const token = to.token[batch_row];
    for (std::int32_t h = 0; h < to.kv_heads; ++h) {
      auto const row = to.blocks.row(to.sequence[batch_row], h, to.kv_heads);
      Codec::encode(heads + std::int64_t{h} * to.dim, to.dim, to.blocks.at(row, h, token),
                    to.blocks.scales_at(row, h, token));
    }
    stored_[i] = 1;
  }

  /// Writes all rows of the run. rows: [num_rows, kv_heads, dim].
  template <storable<Codec> T>
  void store_all(T const* rows) const noexcept {
    auto const width = std::int64_t{rows_->kv_heads} * rows_->dim;
    for (std::int32_t i = 0; i < num_rows_; ++i) store(i, rows + i * width);
  }

  /// Says that all rows of the run were written through `destination()`.
  void mark_stored() const noexcept {
    if (*current_step_ != step_) return;
    for (std::int32_t i = 0; i < num_rows_; ++i) stored_[i] = 1;
  }

 private:
  append_rows const* rows_;
  std::uint64_t const* current_step_;  // the step in progress now
  std::uint8_t* stored_;               // [num_rows]
  std::uint64_t step_;                 // the step that this run belongs to
  std::int32_t first_row_;
  std::int32_t num_rows_;
};

STRATA_NAMESPACE_END
