// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which rows of a batch are still alive at which layer. Below a sequence's tail every row is; from
// its tail on only the rows whose logits are wanted. Sequences of one batch may have different
// tails.
#pragma once

#include <cstdint>
#include <span>

#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Rows alive at some layers, in batch order, and where each sequence's begin.
struct row_set {
  std::span<std::int32_t const> rows;       // [num_rows], indices into the batch
  std::span<std::int32_t const> offsets;    // [num_seqs + 1], indices into `rows`
  std::span<std::int32_t const> positions;  // [num_rows]
};

class batch_rows {
 public:
  struct sequence {
    std::int32_t num_rows = 0;
    std::int32_t first_logit = 0;  // rows from this one on want logits
    std::int32_t first_position = 0;
    std::int32_t tail_begin = 0;
  };

  /// Lays out the sets for all layers. O(different tails x rows).
  status build(std::span<sequence const> sequences) noexcept {
    num_seqs_ = static_cast<std::int32_t>(sequences.size());
    num_rows_ = 0;
    num_tails_ = 0;
    for (auto const& s : sequences) {
      num_rows_ += s.num_rows;
      if (auto const outcome = note_tail(s.tail_begin); !outcome.ok()) return outcome;
    }
    auto const sets = std::int64_t{num_tails_} + 1;
    if (auto const s = rows_.grow(sets * num_rows_); !s.ok()) return s;
    if (auto const s = positions_.grow(sets * num_rows_); !s.ok()) return s;
    if (auto const s = offsets_.grow(sets * (num_seqs_ + 1)); !s.ok()) return s;
    if (auto const s = sequence_of_.grow(num_rows_); !s.ok()) return s;
    for (std::int32_t set = 0; set <= num_tails_; ++set) lay_out(set, sequences);
    return {};
  }

  /// The rows whose queries run at a layer. Layer -1 stands for the embedding: all rows.
  row_set alive_at(std::int32_t layer) const noexcept {
    std::int32_t set = 0;
    while (set < num_tails_ && tails_[set] <= layer) ++set;
    auto const rows = rows_.data() + std::int64_t{set} * num_rows_;
    auto const positions = positions_.data() + std::int64_t{set} * num_rows_;
    auto const offsets = offsets_.data() + std::int64_t{set} * (num_seqs_ + 1);
    auto const count = static_cast<std::size_t>(offsets[num_seqs_]);
    return {{rows, count}, {offsets, static_cast<std::size_t>(num_seqs_) + 1}, {positions, count}};
  }

  std::int32_t num_rows() const noexcept { return num_rows_; }
  /// [num_rows], the sequence of each batch row.
  std::int32_t const* sequences() const noexcept { return sequence_of_.data(); }

 private:
  /// Keeps the different tails in ascending order.
  status note_tail(std::int32_t tail) noexcept {
    std::int32_t at = 0;
    while (at < num_tails_ && tails_[at] < tail) ++at;
    if (at < num_tails_ && tails_[at] == tail) return {};
    if (auto const s = tails_.grow(num_tails_ + 1); !s.ok()) return s;
    for (auto i = num_tails_; i > at; --i) tails_[i] = tails_[i - 1];
    tails_[at] = tail;
    ++num_tails_;
    return {};
  }

  void lay_out(std::int32_t set, std::span<sequence const> sequences) noexcept {
    auto* const rows = rows_.data() + std::int64_t{set} * num_rows_;
    auto* const positions = positions_.data() + std::int64_t{set} * num_rows_;
    auto* const offsets = offsets_.data() + std::int64_t{set} * (num_seqs_ + 1);
    std::int32_t batch_row = 0, count = 0;
    for (std::int32_t s = 0; s < num_seqs_; ++s) {
      auto const& seq = sequences[static_cast<std::size_t>(s)];
      bool const in_tail = set > 0 && seq.tail_begin <= tails_[set - 1];
      offsets[s] = count;
      for (std::int32_t i = 0; i < seq.num_rows; ++i, ++batch_row) {
        if (set == 0) sequence_of_[batch_row] = s;
        if (in_tail && i < seq.first_logit) continue;
        rows[count] = batch_row;
        positions[count++] = seq.first_position + i;
      }
    }
    offsets[num_seqs_] = count;
  }

  array<std::int32_t> tails_;        // [num_tails], ascending; set i + 1 begins at tails_[i]
  array<std::int32_t> rows_;         // [num_tails + 1, num_rows]
  array<std::int32_t> positions_;    // [num_tails + 1, num_rows]
  array<std::int32_t> offsets_;      // [num_tails + 1, num_seqs + 1]
  array<std::int32_t> sequence_of_;  // [num_rows]
  std::int32_t num_seqs_ = 0;
  std::int32_t num_rows_ = 0;
  std::int32_t num_tails_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
