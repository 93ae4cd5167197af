// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// K or V in memory of any layout. All of it that no token lies in is NaN.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/cache/view.hpp>

#include "encode_row.hpp"
#include "exact_numbers.hpp"

namespace support {

inline std::size_t as_size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// How rows are cut into blocks, K and V each by a table of its own. Rows and blocks are scattered.
struct cache_layout {
  std::int32_t k_block = 0, v_block = 0;  ///< tokens; 0: a row is one block, without a table
  bool heads_first = false;               ///< [head, token] in a block, else [token, head]
  bool row_per_head = false;              ///< every (sequence, KV head) in a row of its own
};

template <class Codec>
struct cache_tensor {
  std::vector<std::byte> memory, scales;
  std::vector<std::int32_t> table, row_of;
  strata::writable_blocks at;
  std::int32_t kv_heads = 0, dim = 0;

  /// Blocks of `tokens` each; 0: a row is one block.
  void build(cache_layout const& layout, std::int32_t tokens, std::int32_t seqs,
             std::int32_t max_length, std::int32_t heads, std::int32_t width, std::uint64_t seed) {
    kv_heads = heads;
    dim = width;
    bool const paged = tokens > 0;
    auto const block = paged ? tokens : std::max(max_length, 1);
    auto const rows = layout.row_per_head ? seqs * kv_heads : seqs;
    auto const per_row = paged ? (max_length + block - 1) / block + 1 : 1;
    auto const places = std::int64_t{rows} * per_row * block * kv_heads;
    // 0xFF: a NaN in every plain codec, and in scales.
    memory.assign(as_size(Codec::row_bytes(dim) * places), std::byte{0xFF});
    scales.assign(as_size(Codec::scale_bytes(dim) * places), std::byte{0xFF});
    auto* const scale_data = scales.empty() ? nullptr : scales.data();
    at = layout.heads_first
             ? strata::hnd_blocks<Codec>(memory.data(), block, kv_heads, dim, scale_data)
             : strata::nhd_blocks<Codec>(memory.data(), block, kv_heads, dim, scale_data);
    if (paged) {
      table = scattered(rows * per_row, seed);
      at.block_table = table.data();
      at.blocks_per_row = per_row;
    }
    if (layout.row_per_head || !paged) {
      row_of = scattered(rows, seed + 1);
      at.row_of = row_of.data();
      at.row_per_head = layout.row_per_head;
    }
  }
  template <class T>
  void write(std::int32_t s, std::int32_t h, std::int32_t t, std::vector<T> const& x) {
    auto const row = at.row(s, h, kv_heads);
    // Of few bits, so that its products are exact: kernels may round them or not.
    auto const scale = 0x1p-6f * static_cast<float>(h + 1);
    encode_row<Codec>(x.data(), dim, at.at(row, h, t), at.scales_at(row, h, t), scale);
  }

 private:
  /// 0 .. count - 1 in any order but the ascending one.
  static std::vector<std::int32_t> scattered(std::int32_t count, std::uint64_t seed) {
    number_stream stream(seed);
    std::vector<std::int32_t> order;
    for (std::int32_t i = 0; i < count; ++i) order.push_back(count - 1 - i);
    for (std::int32_t i = count - 1; i > 1; --i)
      std::swap(order[as_size(i)], order[as_size(stream.below(i))]);
    return order;
  }
};

}  // namespace support
