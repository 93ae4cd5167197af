// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Operands of matrix products: products of whole tiles against plain loops, so that what each lane
// holds need not be repeated here; and every number of 8 bits.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cuda/detail/tile_reader.hpp>

#include "support/exact_numbers.hpp"
#include "support/simt.hpp"

namespace {

using namespace strata::cuda::detail;
using simt::block;
using strata::bfloat16;
using strata::float16;

template <class T>
T number_of(float x) {
  return strata::detail::narrow<T>(x);
}

/// Small integers, exact in every type, and so are sums of their products.
std::vector<float> integers(std::int64_t count, std::uint64_t seed) {
  auto x = support::random_values<float>(count, seed, 4);
  for (auto& e : x) e = static_cast<float>(static_cast<int>(e));
  return x;
}

/// 16 rows of Dim as a codec without its scales keeps them, in shared memory.
template <class Reader, class T, std::int32_t Dim>
void lay_out(std::vector<float> const& x, std::byte* tile) {
  for (std::int32_t r = 0; r < 16; ++r)
    for (std::int32_t i = 0; i < Dim; ++i) {
      auto const value = x[static_cast<std::size_t>(r * Dim + i)];
      if constexpr (Reader::row_bytes == Dim) {
        tile[r * Reader::pitch + i] = static_cast<std::byte>(static_cast<std::int8_t>(value));
      } else {
        auto const bits = number_of<T>(value).bits;
        std::memcpy(tile + r * Reader::pitch + 2 * i, &bits, 2);
      }
    }
}

/// Q [16, Dim] K^T [Dim, 16] by a warp.
template <class Reader, class T, std::int32_t Dim>
void check_keys() {
  auto const q = integers(16 * Dim, 1), k = integers(16 * Dim, 2);
  std::vector<float> got(256, -1);
  simt::launch({1, 32, 16 * Reader::pitch}, [&](block const& b) {
    auto const lane = b.thread();
    if (lane == 0) lay_out<Reader, T, Dim>(k, b.memory());
    b.sync_warp();
    float c[2][4] = {};
    for (std::int32_t step = 0; step < Dim / key_columns; ++step) {
      std::uint32_t a[4], keys[2][2];
      for (std::int32_t word = 0; word < 4; ++word) {
        auto const row = fragment_row(lane, 2 * (word % 2));
        auto const* const at =
            &q[static_cast<std::size_t>(row * Dim + Reader::query_column(step, lane % 4, word))];
        a[word] = b.pack<T>(at[0], at[1]);
      }
      Reader::keys(b, b.memory(), step, keys);
      for (int n = 0; n < 2; ++n) b.multiply_add<T>(c[n], a, keys[n]);
    }
    for (int n = 0; n < 2; ++n)
      for (int i = 0; i < 4; ++i)
        got[static_cast<std::size_t>(16 * fragment_row(lane, i) + 8 * n +
                                     fragment_column(lane, i))] = c[n][i];
  });
  for (std::int32_t r = 0; r < 16; ++r)
    for (std::int32_t key = 0; key < 16; ++key) {
      float sum = 0;
      for (std::int32_t i = 0; i < Dim; ++i)
        sum +=
            q[static_cast<std::size_t>(r * Dim + i)] * k[static_cast<std::size_t>(key * Dim + i)];
      REQUIRE(got[static_cast<std::size_t>(16 * r + key)] == sum);
    }
}

/// P [16, 16] V [16, Dim] by a warp, P being what a product left.
template <class Reader, class T, std::int32_t Dim>
void check_values() {
  auto const p = integers(256, 3), v = integers(16 * Dim, 4);
  std::vector<float> got(16 * Dim, -1);
  simt::launch({1, 32, 16 * Reader::pitch}, [&](block const& b) {
    auto const lane = b.thread();
    if (lane == 0) lay_out<Reader, T, Dim>(v, b.memory());
    b.sync_warp();
    float weights[2][4];
    for (int n = 0; n < 2; ++n)
      for (int i = 0; i < 4; ++i)
        weights[n][i] = p[static_cast<std::size_t>(16 * fragment_row(lane, i) + 8 * n +
                                                   fragment_column(lane, i))];
    std::uint32_t a[4];
    as_left_operand<T>(b, weights, a);
    for (std::int32_t part = 0; part < Dim / value_columns; ++part) {
      std::uint32_t values[4][2];
      Reader::values(b, b.memory(), part, values);
      for (std::int32_t j = 0; j < 4; ++j) {
        float c[4] = {};
        b.multiply_add<T>(c, a, values[j]);
        for (int i = 0; i < 4; ++i)
          got[static_cast<std::size_t>(fragment_row(lane, i) * Dim +
                                       Reader::value_column(part, j, fragment_column(lane, i)))] =
              c[i];
      }
    }
  });
  for (std::int32_t r = 0; r < 16; ++r)
    for (std::int32_t i = 0; i < Dim; ++i) {
      float sum = 0;
      for (std::int32_t key = 0; key < 16; ++key)
        sum +=
            p[static_cast<std::size_t>(16 * r + key)] * v[static_cast<std::size_t>(key * Dim + i)];
      REQUIRE(got[static_cast<std::size_t>(r * Dim + i)] == sum);
    }
}

template <class Codec, class T>
void check_tiles() {
  check_keys<tile_reader<Codec, T, 64>, T, 64>();
  check_keys<tile_reader<Codec, T, 96>, T, 96>();
  check_keys<tile_reader<Codec, T, 128>, T, 128>();
  check_values<tile_reader<Codec, T, 64>, T, 64>();
  check_values<tile_reader<Codec, T, 128>, T, 128>();
}

}  // namespace

TEST_CASE("cuda tiles: K and V of 16 bits") {
  check_tiles<strata::f16_codec, float16>();
  check_tiles<strata::bf16_codec, bfloat16>();
}

TEST_CASE("cuda tiles: K and V of int8") {
  check_tiles<strata::int8_codec, float16>();
  check_tiles<strata::int8_codec, bfloat16>();
}

TEST_CASE_TEMPLATE("cuda tiles: every int8 becomes 16 bits exactly", T, float16, bfloat16) {
  simt::launch({1, 32, 0}, [](block const& b) {
    for (int x = -128; x < 128; ++x)
      for (int i = 0; i < 4; ++i) {
        auto const others = 0xA5C3E7F1u & ~(0xFFu << 8 * i);
        auto const word = others | static_cast<std::uint32_t>(x & 0xFF) << 8 * i;
        auto const pair = widen_int8<T>(b, word, i, i);
        REQUIRE(strata::to_float(T{static_cast<std::uint16_t>(pair)}) == static_cast<float>(x));
        REQUIRE((pair >> 16) == (pair & 0xFFFF));
      }
  });
}

TEST_CASE("cuda tiles: eight rows of a matrix load lie in different banks") {
  for (auto const pitch : {tile_reader<strata::f16_codec, float16, 64>::pitch,
                           tile_reader<strata::f16_codec, float16, 128>::pitch,
                           tile_reader<strata::f16_codec, float16, 256>::pitch}) {
    std::uint32_t seen = 0;  // groups of four banks
    for (int row = 0; row < 8; ++row) seen |= 1u << row * pitch / 16 % 8;
    CHECK(seen == 0xFF);
  }
}
