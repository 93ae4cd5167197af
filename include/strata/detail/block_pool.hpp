// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One side (K or V) of a block storage: the memory, and which of its blocks each stored tensor
// holds. Several tensors may hold a block, to read: who writes to it takes one of its own first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/block_counts.hpp>
#include <strata/detail/block_loans.hpp>
#include <strata/detail/large_memory.hpp>
#include <strata/detail/math.hpp>
#include <strata/geometry.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Bytes of one head of one token, and how many heads there are.
struct row_shape {
  std::int64_t kv_heads = 0;
  std::int64_t row_bytes = 0;
  std::int64_t scale_bytes = 0;
  bool head_scaled = false;  // the scales are those of all tokens of a block

  /// Of a head-scaled codec that many, and more than one in a longer block.
  constexpr std::int64_t token_bytes() const noexcept {
    return kv_heads * (row_bytes + scale_bytes);
  }
  /// Rows first, then the scales; both begin on a 64-byte boundary.
  constexpr std::int64_t scale_offset(std::int32_t block_size) const noexcept {
    return ceil_divide(block_size * kv_heads * row_bytes, std::int64_t{64}) * 64;
  }
  constexpr std::int64_t block_bytes(std::int32_t block_size) const noexcept {
    auto const scales = (head_scaled ? 1 : block_size) * kv_heads * scale_bytes;
    return scale_offset(block_size) + ceil_divide(scales, std::int64_t{64}) * 64;
  }
  constexpr block_strides scale_strides(std::int64_t block_bytes) const noexcept {
    return {block_bytes, head_scaled ? 0 : kv_heads * scale_bytes, scale_bytes};
  }
};

template <class Codec>
constexpr row_shape shape_of(std::int32_t kv_heads, std::int32_t dim) noexcept {
  return {kv_heads, Codec::row_bytes(dim), Codec::scale_bytes(dim), head_scaled_codec<Codec>};
}

/// The bytes of one block become those of another.
struct block_copy {
  std::int64_t row = 0;    // that gets the copy
  std::int32_t index = 0;  // of the block in that row
  std::int32_t from = -1, to = -1;
};

/// Blocks [0, n) of a row are its own or shared, but for the first ones that it may have let go:
/// their cells keep naming blocks, which whoever reads too much can do without harm. A fork borrows
/// its parent's full blocks: they are counted for it when the parent gives one of them up.
class block_pool {
 public:
  struct sizes {
    std::int64_t block_bytes = 0;  // of the largest layer kind: all blocks are of one size
    std::int32_t block_size = 0;   // tokens
    std::int32_t num_blocks = 0;
    std::int64_t num_rows = 0;        // stored tensors of all sequences
    std::int64_t num_layers = 1;      // rows of a sequence
    std::int64_t blocks_per_row = 0;  // of a sequence of the greatest length
  };

  /// Takes `memory` where it is given, else allocates. A block starts on a 64-byte boundary.
  status prepare(sizes const& wanted, std::span<std::byte> memory, bool on_device) noexcept {
    if (wanted.block_size < 1) return {errc::bad_block_size, no_layer, wanted.block_size, 1};
    if (wanted.num_blocks < 1) return {errc::bad_num_blocks, no_layer, wanted.num_blocks, 1};
    auto const bytes = checked_multiply(wanted.block_bytes, wanted.num_blocks);
    if (!bytes.ok()) return bytes.state();
    auto const cells = checked_multiply(wanted.num_rows, wanted.blocks_per_row);
    if (!cells.ok()) return cells.state();
    if (auto const s = take_memory(*bytes, memory); !s.ok()) return s;
    sizes_ = wanted;
    on_device_ = on_device;
    if (auto const s = table_.assign(*cells, -1); !s.ok()) return s;
    if (auto const s = first_token_.assign(wanted.num_rows, 0); !s.ok()) return s;
    if (auto const s = copies_.grow(wanted.num_rows); !s.ok()) return s;
    if (auto const s = writers_.assign(wanted.num_blocks, 0); !s.ok()) return s;
    if (auto const s = loans_.prepare(wanted.num_rows, wanted.num_layers); !s.ok()) return s;
    return counts_.prepare(wanted.num_blocks);
  }

  std::int64_t allocated_bytes() const noexcept { return sizes_.block_bytes * sizes_.num_blocks; }
  std::int64_t block_bytes() const noexcept { return sizes_.block_bytes; }
  std::int32_t num_blocks() const noexcept { return sizes_.num_blocks; }
  std::int32_t num_free() const noexcept { return counts_.num_free(); }
  std::int32_t block_size() const noexcept { return sizes_.block_size; }
  bool shares() const noexcept { return counts_.num_shared() > 0 || loans_.any(); }

  /// Blocks that hold `tokens` tokens of one tensor.
  std::int32_t blocks_for(std::int32_t tokens) const noexcept {
    return ceil_divide(tokens, sizes_.block_size);
  }

  /// Gives a row the blocks [from, to). There must be enough of them free.
  void take(std::int64_t row, std::int32_t from, std::int32_t to) noexcept {
    for (auto i = from; i < to; ++i) cell(row, i) = counts_.take();
  }
  /// The row lets go of its blocks from `from` on, `to` in all, in an order that leaves the free
  /// ones as they were. How many became free.
  std::int32_t give_back(std::int64_t row, std::int32_t from, std::int32_t to) noexcept {
    if (from < loans_.lent_end(row)) settle(row);
    std::int32_t freed = 0;
    auto const first = larger(first_of(row), loans_.borrowed_end(row));
    for (auto i = to; i > from; --i) {
      if (i > first) freed += counts_.let_go(cell(row, i - 1));
      cell(row, i - 1) = -1;
    }
    loans_.cut(row, from);
    first_token_[row] = smaller(first_token_[row], from * sizes_.block_size);
    return freed;
  }

  /// The first block that a row still holds.
  std::int32_t first_of(std::int64_t row) const noexcept {
    return first_token_[row] / sizes_.block_size;
  }
  /// The first token of it that is there: that of the block, but in a row that came from elsewhere.
  std::int32_t first_token(std::int64_t row) const noexcept { return first_token_[row]; }
  /// How many of a row's blocks [from, to) nobody else holds.
  std::int32_t count_own(std::int64_t row, std::int32_t from, std::int32_t to) noexcept {
    if (from < loans_.lent_end(row)) settle(row);
    auto const first = larger(from, larger(first_of(row), loans_.borrowed_end(row)));
    if (!shares()) return larger(to - first, 0);
    std::int32_t count = 0;
    for (auto i = first; i < to; ++i) count += counts_.holders(block_of(row, i)) == 1;
    return count;
  }
  /// The row lets go of its blocks before `end`, which nobody reads any more.
  void drop_before(std::int64_t row, std::int32_t end) noexcept {
    auto const first = first_of(row);
    if (first >= end) return;
    if (first < loans_.lent_end(row)) settle(row);
    auto const borrowed = loans_.borrowed_end(row);
    for (auto i = larger(first, borrowed); i < end; ++i) counts_.let_go(cell(row, i));
    if (end >= borrowed) loans_.cut(row, 0);
    first_token_[row] = end * sizes_.block_size;
  }

  /// A row that holds nothing holds the blocks of another's first `tokens` tokens, too: it borrows
  /// those that are full, of whom the other borrows them, if it does.
  void share(std::int64_t from, std::int64_t row, std::int32_t tokens) noexcept {
    auto const end = blocks_for(tokens), full = tokens / sizes_.block_size;
    first_token_[row] = first_token_[from];
    if (end > 0)
      std::memcpy(&cell(row, 0), &cell(from, 0),
                  static_cast<std::size_t>(end) * sizeof(std::int32_t));
    auto const borrowed = loans_.borrowed_end(from);
    auto const lent = borrowed > 0 ? smaller(borrowed, full) : full;
    if (lent > first_of(row)) loans_.begin(row, loans_.lender(from), lent);
    hold(row, lent, end);
  }

  /// A row holds a block that somebody holds, too: of a row that holds nothing, from the last block
  /// on down to the first, or to one that is none, -1: from there on it has let go of them.
  void adopt(std::int64_t row, std::int32_t index, std::int32_t block) noexcept {
    if (block < 0 && first_of(row) <= index) first_token_[row] = (index + 1) * sizes_.block_size;
    auto const first = first_of(row);
    // A cell of what was let go names a block all the same.
    if (index < first) block = first < sizes_.blocks_per_row ? larger(cell(row, first), 0) : 0;
    cell(row, index) = block;
    if (index >= first) counts_.hold(block);
  }
  void keep(std::int32_t block) noexcept { counts_.keep(block); }
  void forget(std::int32_t block) noexcept { counts_.forget(block); }
  bool only_kept(std::int32_t block) const noexcept { return counts_.only_kept(block); }

  bool shared(std::int64_t row, std::int32_t index) const noexcept {
    return counts_.holders(block_of(row, index)) > 1;
  }
  /// Counts a row as one that will write to its block, and says whether it then needs a copy: all who
  /// write do but, where all holders write, the last. `forget_writer` for as many rows makes up.
  bool count_writer(std::int64_t row, std::int32_t index) noexcept {
    // Cut down to within what is lent or borrowed, a row would write there.
    if (index < loans_.borrowed_end(row)) count_borrowed(row);
    if (index < loans_.lent_end(row)) settle(row);
    auto const block = block_of(row, index);
    return ++writers_[block] < counts_.holders(block);
  }
  void forget_writer(std::int64_t row, std::int32_t index) noexcept {
    writers_[block_of(row, index)] = 0;
  }
  /// Notes, for a block that a row of so many tokens will write to, the most that any has.
  void note_length(std::int64_t row, std::int32_t index, std::int32_t tokens) noexcept {
    auto& most = writers_[block_of(row, index)];
    most = larger(most, tokens);
  }
  std::int32_t noted_length(std::int64_t row, std::int32_t index) const noexcept {
    return writers_[block_of(row, index)];
  }

  /// Gives the row a copy of a block that it shares. There must be a free one.
  void own(std::int64_t row, std::int32_t index) noexcept {
    auto& at = cell(row, index);
    block_copy const copy{row, index, at, counts_.take()};
    if (!on_device_)
      std::memcpy(memory_ + copy.to * sizes_.block_bytes, memory_ + copy.from * sizes_.block_bytes,
                  static_cast<std::size_t>(sizes_.block_bytes));
    counts_.let_go(copy.from);
    at = copy.to;
    copies_[num_copies_++] = copy;
  }
  /// Copies since the last `forget_copies`: of a device's memory, still to be made.
  std::span<block_copy const> copies() const noexcept { return copies_.first(num_copies_); }
  void forget_copies() noexcept { num_copies_ = 0; }
  /// Shares again what was copied last; false: nothing was.
  bool undo_copy() noexcept {
    if (num_copies_ == 0) return false;
    auto const& copy = copies_[--num_copies_];
    counts_.hold(copy.from);
    counts_.let_go(copy.to);
    cell(copy.row, copy.index) = copy.from;
    return true;
  }

  std::int32_t block_of(std::int64_t row, std::int32_t index) const noexcept {
    return table_[row * sizes_.blocks_per_row + index];
  }
  /// [block_bytes], of a block.
  std::byte* data(std::int32_t block) const noexcept {
    return memory_ + block * sizes_.block_bytes;
  }

  /// Calls body(bytes) for the rows, or for their scales, of tokens [begin, end) of a row, block by
  /// block. Scales of a head-scaled codec are those of each block.
  template <class Body>
  void for_bytes(std::int64_t row, row_shape const& shape, bool scales, std::int32_t begin,
                 std::int32_t end, Body const& body) const noexcept {
    auto const per_token = shape.kv_heads * (scales ? shape.scale_bytes : shape.row_bytes);
    auto const start = scales ? shape.scale_offset(sizes_.block_size) : 0;
    bool const per_block = scales && shape.head_scaled;
    for (auto t = begin; t < end && per_token > 0;) {
      auto const block = t / sizes_.block_size;
      auto const stop = smaller<std::int64_t>(end, (block + std::int64_t{1}) * sizes_.block_size);
      auto const offset = per_block ? 0 : t % sizes_.block_size * per_token;
      auto const size = per_block ? per_token : (stop - t) * per_token;
      body(std::span(data(block_of(row, block)) + start + offset, static_cast<std::size_t>(size)));
      t = static_cast<std::int32_t>(stop);
    }
  }
  /// Takes blocks for the tokens [first_token, end of block `end`) of a row that holds nothing, as if
  /// it had let go of those before.
  void take_late(std::int64_t row, std::int32_t first_token, std::int32_t end) noexcept {
    auto const first = first_token / sizes_.block_size;
    take(row, first, end);
    first_token_[row] = first_token;
    for (std::int32_t i = 0; i < first; ++i) cell(row, i) = first < end ? cell(row, first) : 0;
  }

  std::span<std::int32_t const> table() const noexcept { return table_.first(table_.size()); }

  /// The memory as blocks of [block_size, kv_heads, dim], scales behind; with the block table.
  writable_blocks paged(row_shape const& shape) noexcept {
    auto blocks = unpaged(shape);
    blocks.block_table = table_.data();
    blocks.blocks_per_row = sizes_.blocks_per_row;
    return blocks;
  }

  /// The same without a block table: row r is block r.
  writable_blocks unpaged(row_shape const& shape) noexcept {
    writable_blocks blocks;
    blocks.data = memory_;
    blocks.stride = {sizes_.block_bytes, shape.kv_heads * shape.row_bytes, shape.row_bytes};
    if (shape.scale_bytes > 0) {
      blocks.scales = memory_ + shape.scale_offset(sizes_.block_size);
      blocks.scale_stride = shape.scale_strides(sizes_.block_bytes);
    }
    blocks.block_size = sizes_.block_size;
    return blocks;
  }

 private:
  /// Ends the loans of a row's blocks: those who borrow them hold them from here on.
  void settle(std::int64_t row) noexcept {
    loans_.end_all(row, [&](std::int64_t borrower, std::int32_t end) { hold(borrower, 0, end); });
  }
  /// The same of the blocks that a row borrows.
  void count_borrowed(std::int64_t row) noexcept {
    hold(row, 0, loans_.borrowed_end(row));
    loans_.cut(row, 0);
  }
  /// The row counts among the holders of those of its blocks [from, to) that it has not let go.
  void hold(std::int64_t row, std::int32_t from, std::int32_t to) noexcept {
    for (auto i = larger(first_of(row), from); i < to; ++i) counts_.hold(cell(row, i));
  }

  std::int32_t& cell(std::int64_t row, std::int32_t index) noexcept {
    return table_[row * sizes_.blocks_per_row + index];
  }

  status take_memory(std::int64_t bytes, std::span<std::byte> memory) noexcept {
    if (memory.data() == nullptr) {
      if (auto const s = owned_.allocate(bytes); !s.ok()) return s;
      memory_ = owned_.data();
      return {};
    }
    auto const given = static_cast<std::int64_t>(memory.size());
    auto const off =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
    if (off != 0) return {errc::memory_misaligned, no_layer, off, 64};
    if (given < bytes) return {errc::memory_too_small, no_layer, given, bytes};
    memory_ = memory.data();
    return {};
  }

  sizes sizes_;
  large_memory owned_;
  std::byte* memory_ = nullptr;
  bool on_device_ = false;           // the host cannot reach the memory
  array<std::int32_t> table_;        // [num_rows, blocks_per_row]
  array<std::int32_t> first_token_;  // [num_rows], the first one that is still there
  array<block_copy> copies_;         // [num_rows], of the step in progress
  std::int64_t num_copies_ = 0;
  array<std::int32_t> writers_;  // [num_blocks], or their lengths; zero but for a moment
  block_counts counts_;
  block_loans loans_;
};

}  // namespace detail

STRATA_NAMESPACE_END
