// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A view of K/V as llama.cpp lays it out with flash attention on: per layer a K tensor and a V
// tensor of [kv_size, n_head_kv * head_dim], one row ("cell") per token, shared by all sequences;
// which cells belong to a sequence, and at which position each stands, is written down beside them.
// Where their words meet ours:
//
//     a cell                              a block of one token: block_size 1
//     the cells of a sequence, sorted     a row of the block table
//     cells.pos                           kv_rows::positions
//     layer_reuse_cb(il)                  route::source
//     map_layer_ids[il]                   slot
//
// Cells must be listed in the order of their positions. A sequence that lost cells in the middle
// has gaps in its positions: masks compare positions, so a window still means what it says.
// The layers' tensors lie in one buffer, so that depths can be mixed: a cell of another layer is a
// cell further on.
#include <algorithm>

#include "compare.hpp"

namespace {

using namespace engines;
using codec = strata::f32_codec;

constexpr int kv_size = 24;  // cells
constexpr std::size_t cell_elements = kv_heads * head_dim;

/// cells: [num_seqs, max_length], the cell of each token.
void fill(std::vector<float>& tensor, plain_tensor const& from, int const* cells) {
  for (int s = 0; s < num_seqs; ++s)
    for (int t = 0; t < length[s]; ++t) {
      auto const cell = static_cast<std::size_t>(cells[s * max_length + t]);
      std::copy_n(from.head(s, t, 0), cell_elements, tensor.begin() + cell * cell_elements);
    }
}

/// Two sequences' cells, interleaved as tokens arrived.
struct cell_lists {
  int of[num_seqs * max_length] = {};  // [num_seqs, max_length]

  cell_lists() {
    int count[num_seqs] = {};
    for (int cell = 0; cell < length[0] + length[1]; ++cell) {
      int const s = cell % 2 == 1 && count[1] < length[1] ? 1 : 0;
      of[s * max_length + count[s]++] = cell;
    }
  }
};

/// What llama.cpp's memory looks like to a kernel: k and v are one buffer each.
strata::kv_view<codec> view_of(float const* k, float const* v, int const* cells) {
  strata::kv_view<codec> view;
  auto const bytes = [](float const* data) { return reinterpret_cast<std::byte const*>(data); };
  view.k = strata::nhd_blocks<codec>(bytes(k), 1, kv_heads, head_dim);
  view.v = strata::nhd_blocks<codec>(bytes(v), 1, kv_heads, head_dim);
  view.k.block_table = view.v.block_table = cells;
  view.k.blocks_per_row = view.v.blocks_per_row = max_length;
  view.rows.num_seqs = num_seqs;
  view.rows.lengths = length;
  view.kv_heads = kv_heads;
  view.k_dim = view.v_dim = head_dim;
  return view;
}

std::vector<float> filled(plain_tensor const& from, int const* cells) {
  std::vector<float> tensor(kv_size * cell_elements);
  fill(tensor, from, cells);
  return tensor;
}

bool one_cell_per_token(cell_lists const& cells) {
  plain_tensor const k(1), v(2);
  auto const cache_k = filled(k, cells.of), cache_v = filled(v, cells.of);
  return equal("one cell per token", decode(view_of(cache_k.data(), cache_v.data(), cells.of)),
               expected(k, v));
}

/// K of leaders 0 and 4 in one buffer, V of both in another. The second sequence reads leader 4,
/// whose cells begin kv_size cells after those of leader 0.
bool two_depths(cell_lists const& cells) {
  plain_tensor const k0(1), v0(2), k4(3), v4(4);
  auto const both = [&](plain_tensor const& leader0, plain_tensor const& leader4) {
    auto buffer = filled(leader0, cells.of);
    auto const more = filled(leader4, cells.of);
    buffer.insert(buffer.end(), more.begin(), more.end());
    return buffer;
  };
  auto const k = both(k0, k4), v = both(v0, v4);
  auto mixed = cells;
  for (int i = max_length; i < num_seqs * max_length; ++i) mixed.of[i] += kv_size;
  auto wanted = expected(k0, v0);
  auto const second = expected(k4, v4);
  std::copy(second.begin() + q_heads * head_dim, second.end(), wanted.begin() + q_heads * head_dim);
  return equal("two depths in one batch", decode(view_of(k.data(), v.data(), mixed.of)), wanted);
}

/// After the first sequence lost tokens 1 .. 9 (seq_rm), its 4 cells stand at 0, 10, 11 and 12.
/// With a window of 4 the query, at 13, sees 10 and later; by index it would see all four.
bool gaps(cell_lists const& cells) {
  plain_tensor const k(1), v(2);
  auto const cache_k = filled(k, cells.of), cache_v = filled(v, cells.of);
  int const kept[num_seqs * max_length] = {cells.of[0], cells.of[10], cells.of[11], cells.of[12]};
  int const positions[num_seqs * max_length] = {0, 10, 11, 12};
  int const kept_length[num_seqs] = {4, 0};
  auto view = view_of(cache_k.data(), cache_v.data(), kept);
  view.rows.lengths = kept_length;
  view.rows.positions = positions;
  view.rows.position_seq_stride = max_length;
  auto const q = random_tensor(num_seqs * q_heads * head_dim, 5);
  int const query_positions[num_seqs] = {13, 13};
  auto const attend = [&](int window, int first_key) {
    std::vector<float> out(q.size());
    strata::query_rows<float> rows;
    rows.q = q.data();
    rows.out = out.data();
    rows.positions = query_positions;
    rows.num_seqs = num_seqs;
    rows.q_heads = q_heads;
    rows.key_begin = first_key;
    rows.rule.window = window;
    std::vector<std::byte> workspace(4096);
    strata::serial_executor here;
    auto const s = strata::attend(here, strata::reference_attention{}, rows, view, workspace);
    return s.ok() ? out : std::vector<float>{};
  };
  return equal("a window over gaps in the positions", attend(4, 0),
               attend(strata::unbounded_window, 1));
}

}  // namespace

int main() {
  cell_lists const cells;
  bool good = one_cell_per_token(cells);
  good &= two_depths(cells);
  good &= gaps(cells);
  return good ? 0 : 1;
}
