// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One side (K or V) of a block storage: the memory, its free blocks, and which blocks each stored
// tensor has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
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

class block_pool {
 public:
  struct sizes {
    std::int64_t block_bytes = 0;  // of the largest layer kind: all blocks are of one size
    std::int32_t block_size = 0;   // tokens
    std::int32_t num_blocks = 0;
    std::int64_t num_rows = 0;        // stored tensors of all sequences
    std::int64_t blocks_per_row = 0;  // of a sequence of the greatest length
  };

  /// Takes `memory` where it is given, else allocates. A block starts on a 64-byte boundary.
  status prepare(sizes const& wanted, std::span<std::byte> memory) noexcept {
    if (wanted.block_size < 1) return {errc::bad_block_size, no_layer, wanted.block_size, 1};
    if (wanted.num_blocks < 1) return {errc::bad_num_blocks, no_layer, wanted.num_blocks, 1};
    auto const bytes = checked_multiply(wanted.block_bytes, wanted.num_blocks);
    if (!bytes.ok()) return bytes.state();
    auto const cells = checked_multiply(wanted.num_rows, wanted.blocks_per_row);
    if (!cells.ok()) return cells.state();
    if (auto const s = take_memory(*bytes, memory); !s.ok()) return s;
    sizes_ = wanted;
    if (auto const s = table_.assign(*cells, -1); !s.ok()) return s;
    return fill_free_list();
  }

  std::int64_t allocated_bytes() const noexcept { return sizes_.block_bytes * sizes_.num_blocks; }
  std::int32_t num_blocks() const noexcept { return sizes_.num_blocks; }
  std::int32_t num_free() const noexcept { return num_free_; }
  std::int32_t block_size() const noexcept { return sizes_.block_size; }

  /// Blocks that hold `tokens` tokens of one tensor.
  std::int32_t blocks_for(std::int32_t tokens) const noexcept {
    return ceil_divide(tokens, sizes_.block_size);
  }

  /// Gives a row the blocks [from, to). There must be enough of them free.
  void take(std::int64_t row, std::int32_t from, std::int32_t to) noexcept {
    for (auto i = from; i < to; ++i) cell(row, i) = free_[--num_free_];
  }
  /// Takes them back, in an order that restores the free list as it was.
  void give_back(std::int64_t row, std::int32_t from, std::int32_t to) noexcept {
    for (auto i = to; i > from; --i) {
      free_[num_free_++] = cell(row, i - 1);
      cell(row, i - 1) = -1;
    }
  }

  std::int32_t block_of(std::int64_t row, std::int32_t index) const noexcept {
    return table_[row * sizes_.blocks_per_row + index];
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

  status fill_free_list() noexcept {
    if (auto const s = free_.grow(sizes_.num_blocks); !s.ok()) return s;
    num_free_ = sizes_.num_blocks;
    for (std::int32_t i = 0; i < num_free_; ++i)
      free_[i] = num_free_ - 1 - i;  // block 0 goes first
    return {};
  }

  sizes sizes_;
  large_memory owned_;
  std::byte* memory_ = nullptr;
  array<std::int32_t> table_;  // [num_rows, blocks_per_row]
  array<std::int32_t> free_;   // [num_blocks], the next one last
  std::int32_t num_free_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
