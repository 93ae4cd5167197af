// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of a block table that read the first blocks of another row, uncounted. Forking a context is
// then a copy of table rows: to count all of its blocks, 36 864 of 8192 tokens in 36 layers' blocks
// of 16, took ten times as long. Who lends settles before it gives any of them up.
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/math.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Who lends does not borrow. Not thread-safe; nothing is allocated after `prepare`.
class block_loans {
 public:
  /// Row r borrows from rows r + n * `stride` only: those of the same layer of other sequences.
  status prepare(std::int64_t num_rows, std::int64_t stride) noexcept {
    stride_ = stride;
    return rows_.assign(num_rows, {});
  }

  bool any() const noexcept { return num_loans_ > 0; }
  /// A row's blocks before this one are not its own to count; 0: it borrows none.
  std::int32_t borrowed_end(std::int64_t row) const noexcept { return rows_[row].borrowed_end; }
  /// Blocks of a row from this one on are lent to nobody.
  std::int32_t lent_end(std::int64_t row) const noexcept { return rows_[row].lent_end; }
  /// Whom a row borrows from, or itself.
  std::int64_t lender(std::int64_t row) const noexcept {
    return rows_[row].borrowed_end > 0 ? rows_[row].lender : row;
  }

  /// `row`, which has no loan, borrows the blocks before `end` of one that does not borrow.
  void begin(std::int64_t row, std::int64_t from, std::int32_t end) noexcept {
    if (end <= 0) return;
    STRATA_ASSERT(rows_[from].borrowed_end == 0 && (row - from) % stride_ == 0);
    rows_[row].lender = from;
    rows_[row].borrowed_end = end;
    rows_[from].lent_end = larger(rows_[from].lent_end, end);
    ++rows_[from].borrowers;
    ++num_loans_;
  }
  /// It borrows none from `end` on any more.
  void cut(std::int64_t row, std::int32_t end) noexcept {
    auto& own = rows_[row];
    if (own.borrowed_end <= end) return;
    own.borrowed_end = end;
    if (end > 0) return;
    auto& from = rows_[own.lender];
    if (--from.borrowers == 0) from.lent_end = 0;
    --num_loans_;
  }
  /// Ends all loans of a row's blocks: body(borrower, end) for each.
  template <class Body>
  void end_all(std::int64_t row, Body const& body) noexcept {
    for (auto r = row % stride_; rows_[row].borrowers > 0; r += stride_) {
      if (rows_[r].borrowed_end == 0 || rows_[r].lender != row) continue;
      body(r, rows_[r].borrowed_end);
      cut(r, 0);
    }
  }

 private:
  struct loans_of_row {
    std::int64_t lender = -1;
    std::int32_t borrowed_end = 0;
    std::int32_t lent_end = 0;  // of the longest loan since there last was none
    std::int32_t borrowers = 0;
  };
  array<loans_of_row> rows_;  // [num_rows]
  std::int64_t stride_ = 1;
  std::int64_t num_loans_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
