// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every memory layout that a view can name is filled by plain loops, element by element, and read
// back through the view.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <strata/cache/view.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::f32_codec;
using strata::f64_codec;
using strata::status;
using view_type = strata::kv_view<f32_codec>;

static_assert(std::is_trivially_copyable_v<view_type>);
static_assert(std::is_trivially_copyable_v<strata::kv_view<f64_codec, strata::bf16_codec>>);
static_assert(std::is_trivially_copyable_v<strata::tensor_blocks>);
static_assert(std::is_trivially_copyable_v<strata::writable_blocks>);
static_assert(std::is_trivially_copyable_v<strata::kv_rows>);

// Who may write may read; who may read may not write (law 4).
static_assert(std::is_convertible_v<strata::writable_blocks, strata::tensor_blocks>);
static_assert(!std::is_convertible_v<strata::tensor_blocks, strata::writable_blocks>);
static_assert(!std::is_constructible_v<strata::writable_blocks, strata::tensor_blocks>);
static_assert(std::is_same_v<decltype(strata::tensor_blocks{}.at(0, 0, 0)), std::byte const*>);

namespace {

constexpr std::int32_t view_heads = 3, view_k_dim = 4, view_v_dim = 2;

/// Element i of (row or sequence r, head h, token t): no two are equal, K and V neither.
float k_value(int r, int h, int t, int i) {
  return static_cast<float>(1000 * r + 300 * h + 10 * t + i);
}
float v_value(int r, int h, int t, int i) { return -k_value(r, h, t, i) - 0.5f; }

std::byte const* as_bytes_of(std::vector<float> const& memory) {
  return reinterpret_cast<std::byte const*>(memory.data());
}

view_type empty_view(std::int32_t num_seqs, std::int32_t length) {
  view_type view;
  view.rows.num_seqs = num_seqs;
  view.rows.length = length;
  view.kv_heads = view_heads;
  view.k_dim = view_k_dim;
  view.v_dim = view_v_dim;
  return view;
}

/// Whether the view shows the values of k_row[s] and v_row[s] for every sequence, head and token.
bool shows(view_type const& view, std::vector<int> const& k_row, std::vector<int> const& v_row) {
  bool right = true;
  for (int s = 0; s < view.rows.num_seqs; ++s)
    for (int h = 0; h < view_heads; ++h)
      for (int t = 0; t < view.length(s, h); ++t) {
        double k[view_k_dim], v[view_v_dim];
        view.load_k(s, h, t, k);
        view.load_v(s, h, t, v);
        for (int i = 0; i < view_k_dim; ++i)
          right = right && k[i] == k_value(k_row[static_cast<std::size_t>(s)], h, t, i);
        for (int i = 0; i < view_v_dim; ++i)
          right = right && v[i] == v_value(v_row[static_cast<std::size_t>(s)], h, t, i);
      }
  return right;
}

using value_of = float (*)(int, int, int, int);
constexpr int table_tokens = 10, table_block_size = 4, table_blocks_per_row = 3, table_rows = 3;
// Three rows of three blocks, scattered over a pool of 12.
constexpr std::int32_t k_table[] = {7, 2, 11, 0, 5, 9, 10, 1, 4};
constexpr std::int32_t v_table[] = {1, 8, 3, 6, 0, 2, 5, 11, 9};

/// Fills a pool of blocks; `place(block, token in block, head)` is where a head's elements begin.
template <class Place>
std::vector<float> pool_of(value_of value, std::int32_t const* table, int dim, Place place) {
  std::vector<float> memory(static_cast<std::size_t>(12 * table_block_size * view_heads * dim),
                            -1e9f);
  for (int r = 0; r < table_rows; ++r)
    for (int t = 0; t < table_tokens; ++t)
      for (int h = 0; h < view_heads; ++h)
        for (int i = 0; i < dim; ++i)
          memory[static_cast<std::size_t>(
              place(table[r * table_blocks_per_row + t / table_block_size], t % table_block_size,
                    h) *
                  dim +
              i)] = value(r, h, t, i);
  return memory;
}

int nhd(int block, int token, int head) {
  return (block * table_block_size + token) * view_heads + head;
}
int hnd(int block, int token, int head) {
  return (block * view_heads + head) * table_block_size + token;
}

void use_tables(view_type& view) {
  view.k.block_table = k_table;
  view.v.block_table = v_table;
  view.k.blocks_per_row = view.v.blocks_per_row = table_blocks_per_row;
}

}  // namespace

TEST_CASE("contiguous tensors: [sequence, token, head, element]") {
  for (int const num_seqs : {1, 3}) {
    std::vector<float> k, v;
    for (int s = 0; s < num_seqs; ++s)
      for (int t = 0; t < table_tokens; ++t)
        for (int h = 0; h < view_heads; ++h) {
          for (int i = 0; i < view_k_dim; ++i) k.push_back(k_value(s, h, t, i));
          for (int i = 0; i < view_v_dim; ++i) v.push_back(v_value(s, h, t, i));
        }
    auto const view = strata::contiguous_view(k.data(), v.data(), num_seqs, table_tokens,
                                              view_heads, view_k_dim, view_v_dim);
    CHECK(view.check().ok());
    CHECK(view.length(0, 0) == table_tokens);
    CHECK(view.positions(0, 0) == nullptr);
    CHECK(shows(view, {0, 1, 2}, {0, 1, 2}));
  }
}

TEST_CASE("paged memory, [block, token, head, element], K and V with tables of their own") {
  auto const k = pool_of(k_value, k_table, view_k_dim, nhd),
             v = pool_of(v_value, v_table, view_v_dim, nhd);
  auto view = empty_view(table_rows, table_tokens);
  view.k = strata::nhd_blocks<f32_codec>(as_bytes_of(k), table_block_size, view_heads, view_k_dim);
  view.v = strata::nhd_blocks<f32_codec>(as_bytes_of(v), table_block_size, view_heads, view_v_dim);
  use_tables(view);
  CHECK(view.check().ok());
  CHECK(shows(view, {0, 1, 2}, {0, 1, 2}));
}

TEST_CASE("paged memory, [block, head, token, element]") {
  auto const k = pool_of(k_value, k_table, view_k_dim, hnd),
             v = pool_of(v_value, v_table, view_v_dim, hnd);
  auto view = empty_view(table_rows, table_tokens);
  view.k = strata::hnd_blocks<f32_codec>(as_bytes_of(k), table_block_size, view_heads, view_k_dim);
  view.v = strata::hnd_blocks<f32_codec>(as_bytes_of(v), table_block_size, view_heads, view_v_dim);
  use_tables(view);
  CHECK(shows(view, {0, 1, 2}, {0, 1, 2}));
}

TEST_CASE("K in one order and V in the other, of one pool each") {
  auto const k = pool_of(k_value, k_table, view_k_dim, hnd),
             v = pool_of(v_value, v_table, view_v_dim, nhd);
  auto view = empty_view(table_rows, table_tokens);
  view.k = strata::hnd_blocks<f32_codec>(as_bytes_of(k), table_block_size, view_heads, view_k_dim);
  view.v = strata::nhd_blocks<f32_codec>(as_bytes_of(v), table_block_size, view_heads, view_v_dim);
  use_tables(view);
  CHECK(shows(view, {0, 1, 2}, {0, 1, 2}));
}

TEST_CASE("a table that says which row each sequence reads: mixed depth") {
  auto const k = pool_of(k_value, k_table, view_k_dim, nhd),
             v = pool_of(v_value, v_table, view_v_dim, nhd);
  auto view = empty_view(4, table_tokens);
  view.k = strata::nhd_blocks<f32_codec>(as_bytes_of(k), table_block_size, view_heads, view_k_dim);
  view.v = strata::nhd_blocks<f32_codec>(as_bytes_of(v), table_block_size, view_heads, view_v_dim);
  use_tables(view);
  std::int32_t const k_rows[] = {2, 0, 0, 1}, v_rows[] = {1, 1, 2, 0};
  view.k.row_of = k_rows;
  view.v.row_of = v_rows;
  CHECK(shows(view, {2, 0, 0, 1}, {1, 1, 2, 0}));
}

TEST_CASE("a block per token: cells anywhere, one table entry each") {
  constexpr std::int32_t cells[] = {5, 0, 3, 7, 1, 6, 2, 4};  // two sequences of four tokens
  std::vector<float> k(8 * view_heads * view_k_dim), v(8 * view_heads * view_v_dim);
  for (int s = 0; s < 2; ++s)
    for (int t = 0; t < 4; ++t)
      for (int h = 0; h < view_heads; ++h) {
        auto const cell = static_cast<std::size_t>(cells[s * 4 + t] * view_heads + h);
        for (int i = 0; i < view_k_dim; ++i)
          k[cell * view_k_dim + static_cast<std::size_t>(i)] = k_value(s, h, t, i);
        for (int i = 0; i < view_v_dim; ++i)
          v[cell * view_v_dim + static_cast<std::size_t>(i)] = v_value(s, h, t, i);
      }
  auto view = empty_view(2, 4);
  view.k = strata::nhd_blocks<f32_codec>(as_bytes_of(k), 1, view_heads, view_k_dim);
  view.v = strata::nhd_blocks<f32_codec>(as_bytes_of(v), 1, view_heads, view_v_dim);
  view.k.block_table = view.v.block_table = cells;
  view.k.blocks_per_row = view.v.blocks_per_row = 4;
  CHECK(shows(view, {0, 1}, {0, 1}));
}

TEST_CASE("rows per KV head: each head has blocks of its own") {
  // Row r holds head r % heads of sequence r / heads in token-major blocks of one head.
  constexpr int num_seqs = 2;
  constexpr std::int32_t row_of[] = {3, 0, 5, 1, 4, 2};
  std::vector<float> k(6 * table_tokens * view_k_dim), v(6 * table_tokens * view_v_dim);
  for (int s = 0; s < num_seqs; ++s)
    for (int h = 0; h < view_heads; ++h)
      for (int t = 0; t < table_tokens; ++t) {
        auto const place = static_cast<std::size_t>(row_of[s * view_heads + h] * table_tokens + t);
        for (std::size_t i = 0; i < view_k_dim; ++i)
          k[place * view_k_dim + i] = k_value(s, h, t, static_cast<int>(i));
        for (std::size_t i = 0; i < view_v_dim; ++i)
          v[place * view_v_dim + i] = v_value(s, h, t, static_cast<int>(i));
      }
  auto view = empty_view(num_seqs, table_tokens);
  view.k = strata::nhd_blocks<f32_codec>(as_bytes_of(k), table_tokens, 1, view_k_dim);
  view.v = strata::nhd_blocks<f32_codec>(as_bytes_of(v), table_tokens, 1, view_v_dim);
  view.k.stride.head = view.v.stride.head = 0;  // the row has chosen the head
  view.k.row_of = view.v.row_of = row_of;
  view.k.row_per_head = view.v.row_per_head = true;
  CHECK(shows(view, {0, 1}, {0, 1}));
}

TEST_CASE("lengths: one for all, per sequence, or per KV head") {
  auto view = empty_view(2, 9);
  CHECK(view.length(0, 0) == 9);
  CHECK(view.length(1, 2) == 9);
  constexpr std::int32_t per_seq[] = {4, 7};
  view.rows.lengths = per_seq;
  CHECK(view.length(0, 2) == 4);
  CHECK(view.length(1, 0) == 7);
  constexpr std::int32_t per_head[] = {1, 2, 3, 4, 5, 6};
  view.rows.lengths = per_head;
  view.rows.length_per_head = true;
  CHECK(view.length(0, 2) == 3);
  CHECK(view.length(1, 0) == 4);
  CHECK(view.length(1, 2) == 6);
}

TEST_CASE("positions: none, per sequence, per KV head, or of another row") {
  auto view = empty_view(3, 4);
  std::vector<std::int32_t> const positions(100);
  CHECK(view.positions(2, 1) == nullptr);
  view.rows.positions = positions.data();
  view.rows.position_seq_stride = 10;
  CHECK(view.positions(2, 1) == positions.data() + 20);
  view.rows.position_head_stride = 3;
  CHECK(view.positions(2, 1) == positions.data() + 23);
  constexpr std::int32_t row_of[] = {2, 2, 0};
  view.rows.position_row_of = row_of;
  CHECK(view.positions(2, 1) == positions.data() + 3);
  CHECK(view.positions(0, 2) == positions.data() + 26);
}
