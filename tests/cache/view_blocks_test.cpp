// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Addresses of blocks, scales beside them, and what a view refuses.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>

#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/view.hpp>

#include "support/print.hpp"

using strata::block_strides;
using strata::errc;
using strata::f32_codec;
using strata::fp8_codec;
using strata::status;
using strata::tensor;
using strata::writable_blocks;

namespace {

std::byte view_memory[1 << 12], view_scale_memory[1 << 10];

/// A byte per element and one scale of four bytes per row, kept apart.
struct place_codec {
  static constexpr bool exact = false;
  static constexpr std::int64_t row_bytes(std::int32_t n) noexcept { return n; }
  static constexpr std::int64_t scale_bytes(std::int32_t) noexcept { return 4; }
  template <class T>
  static void encode(T const*, std::int32_t, std::byte*, std::byte*) noexcept {}
  template <class T>
  static void decode(std::byte const* row, std::byte const* scales, std::int32_t, T* out) noexcept {
    out[0] = static_cast<T>(row - view_memory);
    out[1] = static_cast<T>(scales - view_scale_memory);
  }
};
static_assert(strata::kv_codec<place_codec>);

template <class Codec = f32_codec>
strata::kv_view<Codec> small_view() {
  strata::kv_view<Codec> view;
  view.k.data = view.v.data = view_memory;
  view.k.scales = view.v.scales = view_scale_memory;
  view.rows.num_seqs = 2;
  view.rows.length = 1;
  view.kv_heads = 2;
  view.k_dim = 8;
  view.v_dim = 4;
  return view;
}

template <class View, class Change>
status refusal_of(View view, Change change) {
  change(view);
  return view.check();
}

}  // namespace

TEST_CASE("an address is block, token in the block and head, each by its stride in bytes") {
  writable_blocks blocks;
  blocks.data = view_memory;
  blocks.stride = {1000, 100, 7};
  blocks.block_size = 3;
  CHECK(blocks.at(2, 0, 0) == view_memory + 2000);  // (row, head, token)
  CHECK(blocks.at(2, 1, 5) == view_memory + 2000 + 1 * 7 + 5 % 3 * 100);

  constexpr std::int32_t table[] = {9, 8, 3, 1};
  blocks.block_table = table;
  blocks.blocks_per_row = 2;
  CHECK(blocks.block(1, 2) == 3);
  CHECK(blocks.block(1, 3) == 1);
  CHECK(blocks.at(1, 5, 4) == view_memory + 1000 + 100 + 35);
}

TEST_CASE("scales have strides of their own, and the same blocks") {
  writable_blocks blocks;
  blocks.data = view_memory;
  blocks.stride = {1000, 100, 7};
  blocks.block_size = 3;
  CHECK(blocks.scales_at(2, 1, 5) == nullptr);
  blocks.scales = view_scale_memory;
  blocks.scale_stride = {60, 20, 4};
  CHECK(blocks.scales_at(2, 1, 5) == view_scale_memory + 120 + 40 + 4);
  constexpr std::int32_t table[] = {9, 8, 3, 1};
  blocks.block_table = table;
  blocks.blocks_per_row = 2;
  CHECK(blocks.scales_at(1, 1, 4) == view_scale_memory + 60 + 20 + 4);
}

TEST_CASE("readers see the blocks that writers write") {
  writable_blocks blocks;
  blocks.data = view_memory;
  blocks.stride = {512, 64, 8};
  blocks.scales = view_scale_memory;
  blocks.scale_stride = {60, 20, 4};
  blocks.block_size = 3;
  constexpr std::int32_t table[] = {4, 2, 3, 1}, rows[] = {1, 0};
  blocks.block_table = table;
  blocks.blocks_per_row = 2;
  blocks.row_of = rows;
  strata::tensor_blocks const reader = blocks;
  CHECK(reader.row(0, 1, 2) == 1);
  CHECK(reader.at(1, 1, 4) == blocks.at(1, 1, 4));
  CHECK(reader.scales_at(1, 1, 4) == blocks.scales_at(1, 1, 4));
  blocks.row_per_head = true;
  CHECK(strata::tensor_blocks(blocks).row(0, 1, 2) == 0);
}

TEST_CASE("offsets are 64-bit throughout") {
  strata::tensor_blocks blocks;
  blocks.data = view_memory;
  blocks.stride = {std::int64_t{1} << 33, std::int64_t{1} << 32, std::int64_t{1} << 31};
  blocks.block_size = 1 << 20;
  // Compared as distances: nothing is read there.
  auto const far = reinterpret_cast<std::intptr_t>(blocks.at(3, 2, 5));
  CHECK(far - reinterpret_cast<std::intptr_t>(view_memory) ==
        3 * (std::int64_t{1} << 33) + 5 * (std::int64_t{1} << 32) + 2 * (std::int64_t{1} << 31));
  CHECK(blocks.block(std::int64_t{1} << 40, 0) == std::int64_t{1} << 40);
}

TEST_CASE("the two orders of blocks, in bytes") {
  auto const nhd = strata::nhd_blocks<f32_codec>(view_memory, 16, 2, 8);
  CHECK(nhd.data == view_memory);
  CHECK(nhd.block_size == 16);
  CHECK(nhd.stride.head == 32);
  CHECK(nhd.stride.token == 64);
  CHECK(nhd.stride.block == 1024);
  auto const hnd = strata::hnd_blocks<f32_codec>(view_memory, 16, 2, 8);
  CHECK(hnd.block_size == 16);
  CHECK(hnd.stride.token == 32);
  CHECK(hnd.stride.head == 512);
  CHECK(hnd.stride.block == 1024);
  CHECK(hnd.scales == nullptr);
}

TEST_CASE("scales lie in the order of their blocks") {
  auto const nhd = strata::nhd_blocks<place_codec>(view_memory, 16, 2, 8, view_scale_memory);
  CHECK(nhd.stride.token == 16);
  CHECK(nhd.scales == view_scale_memory);
  CHECK(nhd.scale_stride.head == 4);
  CHECK(nhd.scale_stride.token == 8);
  CHECK(nhd.scale_stride.block == 128);
  auto const hnd = strata::hnd_blocks<place_codec>(view_memory, 16, 2, 8, view_scale_memory);
  CHECK(hnd.scale_stride.token == 4);
  CHECK(hnd.scale_stride.head == 64);
  CHECK(hnd.scale_stride.block == 128);
}

TEST_CASE("a scale of a KV head lies once in a block, whatever the order of rows") {
  for (auto const& blocks :
       {strata::nhd_blocks<fp8_codec>(view_memory, 16, 2, 8, view_scale_memory),
        strata::hnd_blocks<fp8_codec>(view_memory, 16, 2, 8, view_scale_memory)}) {
    CHECK(blocks.stride.block == 256);
    CHECK(blocks.scale_stride.head == 4);
    CHECK(blocks.scale_stride.token == 0);
    CHECK(blocks.scale_stride.block == 8);
    for (std::int32_t t = 0; t < 16; ++t)
      CHECK(blocks.scales_at(3, 1, t) == view_scale_memory + 3 * 8 + 4);
  }
}

TEST_CASE("a codec is handed its row and its scales") {
  auto view = small_view<place_codec>();
  view.k.stride = {100, 10, 1};
  view.v.stride = {200, 20, 2};
  view.k.scale_stride = {40, 8, 4};
  view.v.scale_stride = {80, 16, 8};
  view.k.block_size = view.v.block_size = 4;
  float k[2], v[2];
  view.load_k(1, 1, 3, k);
  view.load_v(1, 1, 3, v);
  CHECK(k[0] == 131);
  CHECK(k[1] == 68);
  CHECK(v[0] == 262);
  CHECK(v[1] == 136);
}

TEST_CASE("a view without sizes or memory is refused") {
  using view = strata::kv_view<f32_codec>;
  auto const refused = [](auto change) { return refusal_of(small_view(), change); };
  CHECK(refused([](view&) {}).ok());
  CHECK(refused([](view& v) { v.rows.num_seqs = -1; }) == status{errc::bad_view_rows, {}, -1, 0});
  CHECK(refused([](view& v) { v.rows.length = -6; }) == status{errc::bad_view_rows, {}, -6, 0});
  CHECK(refused([](view& v) { v.kv_heads = 0; }) == status{errc::bad_view_heads, {}, 0, 1});
  CHECK(refused([](view& v) { v.k_dim = -2; }) == status{errc::bad_view_heads, {}, -2, 1});
  CHECK(refused([](view& v) { v.v_dim = -3; }) == status{errc::bad_view_heads, {}, -3, 1});
  CHECK(refused([](view& v) { v.k.block_size = -4; }) == status{errc::bad_block_size, {}, -4, 1});
  CHECK(refused([](view& v) { v.v.block_size = -5; }) == status{errc::bad_block_size, {}, -5, 1});
  CHECK(refused([](view& v) { v.k.data = nullptr; }) == null_pointer(tensor::k));
  CHECK(refused([](view& v) { v.v.data = nullptr; }) == null_pointer(tensor::v));
}

TEST_CASE("a codec that keeps scales apart needs them") {
  using view = strata::kv_view<place_codec>;
  auto const refused = [](auto change) { return refusal_of(small_view<place_codec>(), change); };
  CHECK(refused([](view&) {}).ok());
  CHECK(refused([](view& v) { v.k.scales = nullptr; }) == null_pointer(tensor::k_scales));
  CHECK(refused([](view& v) { v.v.scales = nullptr; }) == null_pointer(tensor::v_scales));
  CHECK(refused([](view& v) { v.k.scales = nullptr, v.rows.num_seqs = 0; }).ok());
  auto const unscaled = [](strata::kv_view<f32_codec>& v) { v.k.scales = v.v.scales = nullptr; };
  CHECK(refusal_of(small_view(), unscaled).ok());
}

TEST_CASE("a view of nothing needs no memory") {
  using view = strata::kv_view<f32_codec>;
  auto const without_memory = [](auto change) {
    return refusal_of(small_view(), [&](view& v) {
      v.k.data = v.v.data = nullptr;
      change(v);
    });
  };
  static constexpr std::int32_t lengths[] = {0, 1};
  CHECK_FALSE(without_memory([](view&) {}).ok());
  CHECK(without_memory([](view& v) { v.rows.num_seqs = 0; }).ok());
  CHECK(without_memory([](view& v) { v.rows.length = 0; }).ok());
  CHECK_FALSE(without_memory([](view& v) { v.rows.length = 0, v.rows.lengths = lengths; }).ok());
}

TEST_CASE("lengths that K or V has no room for are refused, of every sequence and head") {
  using view = strata::kv_view<f32_codec>;
  static constexpr std::int32_t table[12] = {};
  // Two sequences of two KV heads; K has room for 6 tokens, V for 5.
  auto const refused = [](std::int32_t const* lengths, bool per_head) {
    return refusal_of(small_view(), [&](view& v) {
      v.k.block_table = table;
      v.k.blocks_per_row = 3;
      v.k.block_size = 2;
      v.v.block_size = 5;
      v.rows.lengths = lengths;
      v.rows.length_per_head = per_head;
    });
  };
  auto const shape = [](std::int64_t value) {
    return status{errc::length_beyond_blocks, {}, value, 5};
  };
  std::int32_t lengths[] = {0, 5, 6, -1};
  CHECK(refused(lengths, false).ok());  // the other two belong to nobody
  CHECK(refused(lengths, true) == shape(6));
  CHECK(refused(lengths + 1, false) == shape(6));
  CHECK(refused(lengths + 2, false) == shape(6));
  lengths[2] = 1;
  CHECK(refused(lengths, true) == shape(-1));
  CHECK(refused(lengths + 2, false) == shape(-1));
  lengths[3] = 5;
  CHECK(refused(lengths, true).ok());
  CHECK(refusal_of(small_view(), [](view& v) { v.rows.length = 2; }) ==
        status{errc::length_beyond_blocks, {}, 2, 1});
}

TEST_CASE("the room of a row is a product that no table makes overflow") {
  writable_blocks blocks;
  blocks.block_size = 1 << 30;
  CHECK(blocks.capacity() == 1 << 30);
  constexpr std::int32_t table[] = {0};
  blocks.block_table = table;
  CHECK(blocks.capacity() == 0);
  blocks.blocks_per_row = 12;
  CHECK(blocks.capacity() == std::int64_t{12} << 30);
  blocks.blocks_per_row = std::int64_t{1} << 60;
  CHECK(blocks.capacity() == std::int64_t{0x7FFFFFFF} << 30);
  blocks.blocks_per_row = -7;
  CHECK(blocks.capacity() == 0);
}
