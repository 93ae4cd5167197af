// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tables of a step as they lie on a device, and the kernels that bring the storage's tables,
// its blocks and an engine's rows to where the step wants them.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

using strata::detail::ceil_divide;

/// What a kernel is to do, entry by entry.
template <class Entry>
struct entry_list {
  Entry const* first = nullptr;  ///< [count]
  std::int32_t count = 0;
};

/// Calls body(entry) for all entries, a warp to each, `threads` to a block.
template <thread_block Block, class Entry, class Body>
STRATA_DEVICE inline void for_each_by_warps(Block const& block, std::int32_t threads,
                                            entry_list<Entry> const& all, Body&& body) {
  auto const warps = threads / warp_size;
  for (auto i = block.index() * warps + warp_of(block); i < all.count; i += block.count() * warps) {
    auto const entry = all.first[i];
    body(entry);
  }
}

/// `count` numbers from `to` on: value, value + step, ...
struct table_fill {
  std::int32_t* to = nullptr;
  std::int32_t value = 0, step = 0, count = 0;
};

struct fill_kernel {
  static constexpr std::int32_t threads = 128, blocks_per_multiprocessor = 8;
  template <thread_block Block>
  STRATA_DEVICE static void run(Block const& block, entry_list<table_fill> const& all) {
    for_each_by_warps(block, threads, all, [&](table_fill const& fill) {
      for (auto j = lane_of(block); j < fill.count; j += warp_size)
        fill.to[j] = fill.value + j * fill.step;
    });
  }
};

/// Numbers of the step's own tables, and where they belong in those that last.
struct table_move {
  std::int32_t const* from = nullptr;  ///< [count]
  std::int32_t* to = nullptr;          ///< [count]
  std::int64_t count = 0;
};

struct move_kernel {
  static constexpr std::int32_t threads = 128, blocks_per_multiprocessor = 8;
  template <thread_block Block>
  STRATA_DEVICE static void run(Block const& block, entry_list<table_move> const& all) {
    for_each_by_warps(block, threads, all, [&](table_move const& move) {
      for (std::int64_t j = lane_of(block); j < move.count; j += warp_size)
        move.to[j] = move.from[j];
    });
  }
};

/// Blocks that forks shared, and of which a step has to have its own.
struct memory_copy {
  std::byte const* from = nullptr;
  std::byte* to = nullptr;
  std::int64_t bytes = 0;  // a multiple of 16, as both addresses are
};

/// A block to a copy.
struct copy_kernel {
  static constexpr std::int32_t threads = 128, blocks_per_multiprocessor = 8;
  template <thread_block Block>
  STRATA_DEVICE static void run(Block const& block, entry_list<memory_copy> const& all) {
    for (auto i = block.index(); i < all.count; i += block.count()) {
      auto const copy = all.first[i];
      for (std::int64_t at = block.thread() * std::int64_t{16}; at < copy.bytes; at += threads * 16)
        *reinterpret_cast<chunk*>(copy.to + at) = block.load(copy.from + at);
    }
  }
};

/// Rows of x that stay, and move to its front: row rows[i] becomes row i. Ascending, so that
/// rows[i] >= i. Unit: a number of x, or 16 bytes of them.
template <class Unit>
struct kept_rows {
  Unit* x = nullptr;                   ///< [rows, width]
  std::int64_t width = 0;              ///< in units
  std::int32_t const* rows = nullptr;  ///< [count]
  std::int32_t count = 0;
};

/// A thread has a column to itself and walks its rows in order: what it overwrites, it has read
/// before, and nobody else reads. So no thread waits for another.
struct keep_kernel {
  static constexpr std::int32_t threads = 128, blocks_per_multiprocessor = 8;
  static constexpr std::int32_t rows_at_once = 4;  // on their way at the same time
  template <thread_block Block, class Unit>
  STRATA_DEVICE static void run(Block const& block, kept_rows<Unit> const& kept) {
    auto const columns = std::int64_t{block.count()} * threads;
    for (auto c = std::int64_t{block.index()} * threads + block.thread(); c < kept.width;
         c += columns)
      for (std::int32_t i = 0; i < kept.count; i += rows_at_once) {
        Unit moved[rows_at_once] = {};
        unrolled<rows_at_once>([&](std::int32_t j) {
          if (i + j < kept.count) moved[j] = kept.x[kept.rows[i + j] * kept.width + c];
        });
        unrolled<rows_at_once>([&](std::int32_t j) {
          if (i + j < kept.count) kept.x[(i + j) * kept.width + c] = moved[j];
        });
      }
  }
};

/// Where a layer's tables begin among its own, in numbers.
struct layer_tables {
  std::int64_t k_read = 0, k_write = 0, v_read = 0, v_write = 0;  ///< [sequences]
  std::int64_t offsets = 0;                                       ///< [sequences + 1]
  std::int64_t input_rows = 0, input_positions = 0;               ///< [rows]
  std::int64_t live_positions = 0;                                ///< [rows]
  std::int64_t kept = 0;  ///< [rows], which of the input rows the live ones are
  std::int64_t end = 0;
};

/// Where the tables of a step lie, in numbers from the first on.
struct step_layout {
  std::int32_t num_layers = 0, sequences = 0, rows = 0;

  constexpr std::int64_t lengths() const noexcept { return 0; }
  constexpr std::int64_t ids() const noexcept { return sequences; }
  constexpr std::int64_t sequence_of() const noexcept { return 2 * std::int64_t{sequences}; }
  constexpr std::int64_t token_of() const noexcept { return sequence_of() + rows; }
  /// Which of the last layer's live rows want logits.
  constexpr std::int64_t kept_logits() const noexcept { return token_of() + rows; }

  constexpr layer_tables tables() const noexcept {
    auto const s = std::int64_t{sequences}, r = std::int64_t{rows};
    auto const of_rows = 5 * s + 1;
    return {0,       s,           2 * s,           3 * s,           4 * s,
            of_rows, of_rows + r, of_rows + 2 * r, of_rows + 3 * r, of_rows + 4 * r};
  }
  constexpr std::int64_t of_layer(layer_id l, std::int64_t layer_tables::* table) const noexcept {
    auto const own = tables();
    return kept_logits() + rows + l.index * own.end + own.*table;
  }
  /// Of all tables, so that what follows is 16-byte aligned.
  constexpr std::int64_t bytes() const noexcept {
    auto const numbers = of_layer({num_layers}, &layer_tables::k_read);
    return ceil_divide<std::int64_t>(numbers * 4, 16) * 16;
  }
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
