// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A view of K/V as TensorRT-LLM lays it out: one pool of blocks of [num_kv_heads, tokens_per_block,
// head_size] (HND) for all layers, in which K and V of the same tokens are different blocks, found
// through one offset table [num_sequences, 2, max_blocks]. Where their words meet ours:
//
//     tokens_per_block                          block_size
//     kv_cache_block_offsets[seq][0], [seq][1]  the block_table rows of K and of V
//     host/device primary pool pointer          k.data and v.data: the same pool
//     layers in the pool                        rows of the table: depth is a row, not a pointer
//
// Because all layers share the pool, sequences of different depth are read in one call as it is.
#include <algorithm>

#include "compare.hpp"

namespace {

using namespace engines;
using codec = strata::f32_codec;

constexpr int tokens_per_block = 8;
constexpr int max_blocks = 2;
constexpr int num_blocks = 24;
constexpr std::size_t block_elements = kv_heads * tokens_per_block * head_dim;

/// offsets of one layer: [num_seqs, 2, max_blocks]; side 0 is K, side 1 is V.
void fill(std::vector<float>& pool, plain_tensor const& tensor, int const* offsets, int side) {
  for (int s = 0; s < num_seqs; ++s)
    for (int t = 0; t < length[s]; ++t)
      for (int h = 0; h < kv_heads; ++h)
        for (int i = 0; i < head_dim; ++i) {
          auto const row = (s * 2 + side) * max_blocks;
          auto const block = static_cast<std::size_t>(offsets[row + t / tokens_per_block]);
          auto const place = static_cast<std::size_t>(h * tokens_per_block + t % tokens_per_block);
          pool[block * block_elements + place * head_dim + static_cast<std::size_t>(i)] =
              tensor.head(s, t, h)[i];
        }
}

}  // namespace

int main() {
  plain_tensor const k0(1), v0(2), k4(3), v4(4);  // of leaders 0 and 4
  std::vector<float> pool(num_blocks * block_elements);
  // [leaders, num_seqs, 2, max_blocks]
  int const offsets[2 * num_seqs * 2 * max_blocks] = {3, 9,  14, 2, 7, 0, 5,  0,   // leader 0
                                                      1, 20, 8,  6, 4, 0, 10, 0};  // leader 4
  int const* const offsets4 = offsets + num_seqs * 2 * max_blocks;
  fill(pool, k0, offsets, 0);
  fill(pool, v0, offsets, 1);
  fill(pool, k4, offsets4, 0);
  fill(pool, v4, offsets4, 1);

  auto const* const data = reinterpret_cast<std::byte const*>(pool.data());
  strata::kv_view<codec> view;
  view.k = strata::hnd_blocks<codec>(data, tokens_per_block, kv_heads, head_dim);
  view.v = view.k;
  // The table as rows of max_blocks: sequence s of a leader is row 2 s for K and row 2 s + 1 for V.
  view.k.block_table = view.v.block_table = offsets;
  view.k.blocks_per_row = view.v.blocks_per_row = max_blocks;
  int const k_rows[num_seqs] = {0, 2}, v_rows[num_seqs] = {1, 3};
  view.k.row_of = k_rows;
  view.v.row_of = v_rows;
  view.rows.num_seqs = num_seqs;
  view.rows.lengths = length;
  view.kv_heads = kv_heads;
  view.k_dim = view.v_dim = head_dim;
  bool good = equal("one layer, HND blocks, K and V in one pool", decode(view), expected(k0, v0));

  // Mixed depth: the second sequence reads leader 4, whose rows follow those of leader 0.
  int const mixed_k[num_seqs] = {0, 6}, mixed_v[num_seqs] = {1, 7};
  view.k.row_of = mixed_k;
  view.v.row_of = mixed_v;
  auto wanted = expected(k0, v0);
  auto const second = expected(k4, v4);
  std::copy(second.begin() + q_heads * head_dim, second.end(), wanted.begin() + q_heads * head_dim);
  good &= equal("two depths in one batch", decode(view), wanted);

  // K from leader 4 and V from leader 0: their routes are separate.
  view.k.row_of = mixed_k;
  view.v.row_of = v_rows;
  auto crossed = expected(k0, v0);
  auto const cross = expected(k4, v0);
  std::copy(cross.begin() + q_heads * head_dim, cross.end(), crossed.begin() + q_heads * head_dim);
  good &= equal("K of leader 4 with V of leader 0", decode(view), crossed);
  return good ? 0 : 1;
}
