// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A view of K/V as vLLM lays it out: per layer one tensor kv_cache[2, num_blocks, block_size,
// num_kv_heads, head_size] (NHD), and one block_table[num_reqs, max_num_blocks] for all layers of a
// KV cache group. Where their words meet ours:
//
//     kv_cache[0], kv_cache[1]         kv_view::k.data, kv_view::v.data
//     block_table, its row stride      block_table, blocks_per_row
//     seq_lens                         kv_rows::lengths
//     kv_sharing_target_layer_name     route::source
//     a token's slot (slot_mapping)    block * block_size + place there; our slot is a tensor
//
// One allocation per layer serves one depth per call. To mix depths in a batch, allocate the
// leaders together and give each leader a range of block-table rows, as in the second half.
#include <algorithm>

#include "compare.hpp"

namespace {

using namespace engines;
using codec = strata::f32_codec;

constexpr int block_size = 4;
constexpr int max_num_blocks = 4;  // per request
constexpr int num_blocks = 32;
constexpr std::size_t block_elements = block_size * kv_heads * head_dim;

/// Copies a plain tensor into NHD blocks, through a block table row per sequence.
void fill(std::vector<float>& blocks, plain_tensor const& tensor, int const* table) {
  for (int s = 0; s < num_seqs; ++s)
    for (int t = 0; t < length[s]; ++t)
      for (int h = 0; h < kv_heads; ++h)
        for (int i = 0; i < head_dim; ++i) {
          auto const block = static_cast<std::size_t>(table[s * max_num_blocks + t / block_size]);
          auto const place = static_cast<std::size_t>((t % block_size) * kv_heads + h);
          blocks[block * block_elements + place * head_dim + static_cast<std::size_t>(i)] =
              tensor.head(s, t, h)[i];
        }
}

strata::kv_view<codec> view_of(float const* k, float const* v, int const* table) {
  strata::kv_view<codec> view;
  auto const bytes = [](float const* p) { return reinterpret_cast<std::byte const*>(p); };
  view.k = strata::nhd_blocks<codec>(bytes(k), block_size, kv_heads, head_dim);
  view.v = strata::nhd_blocks<codec>(bytes(v), block_size, kv_heads, head_dim);
  for (auto* blocks : {&view.k, &view.v}) {
    blocks->block_table = table;
    blocks->blocks_per_row = max_num_blocks;
  }
  view.rows.num_seqs = num_seqs;
  view.rows.lengths = length;
  view.kv_heads = kv_heads;
  view.k_dim = view.v_dim = head_dim;
  return view;
}

}  // namespace

int main() {
  plain_tensor const k0(1), v0(2), k4(3), v4(4);  // of leaders 0 and 4

  // As vLLM has it: kv_cache of one layer, blocks in no order.
  int const block_table[num_seqs * max_num_blocks] = {7, 3, 20, 11, 5, 30, 0, 0};
  std::vector<float> kv_cache(2 * num_blocks * block_elements);
  std::vector<float> key_cache(num_blocks * block_elements), value_cache(key_cache.size());
  fill(key_cache, k0, block_table);
  fill(value_cache, v0, block_table);
  std::copy(key_cache.begin(), key_cache.end(), kv_cache.begin());
  std::copy(value_cache.begin(), value_cache.end(), kv_cache.begin() + key_cache.size());
  auto const layer = view_of(kv_cache.data(), kv_cache.data() + key_cache.size(), block_table);
  bool good = equal("one layer, NHD blocks", decode(layer), expected(k0, v0));

  // Mixed depth: leaders 0 and 4 in one allocation, rows 0-1 of the table for 0 and rows 2-3 for 4.
  // At layer 5, request 0 (strategy leaders:0) reads row 0 and request 1 (leaders:0,4) reads row 3.
  int const rows_of_both[2 * num_seqs * max_num_blocks] = {7, 3, 20, 11, 5, 30, 0, 0,   // leader 0
                                                           1, 2, 8,  9,  4, 6,  0, 0};  // leader 4
  fill(key_cache, k4, rows_of_both + num_seqs * max_num_blocks);
  fill(value_cache, v4, rows_of_both + num_seqs * max_num_blocks);
  int const row_of[num_seqs] = {0, 3};
  auto mixed = view_of(key_cache.data(), value_cache.data(), rows_of_both);
  mixed.k.row_of = mixed.v.row_of = row_of;
  auto wanted = expected(k0, v0);
  auto const second = expected(k4, v4);
  std::copy(second.begin() + q_heads * head_dim, second.end(), wanted.begin() + q_heads * head_dim);
  good &= equal("two depths in one batch", decode(mixed), wanted);
  return good ? 0 : 1;
}
