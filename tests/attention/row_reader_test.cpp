// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the CPU kernels read rows with, against the codecs, element by element; and their rotation,
// against the matrix.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <strata/attention/cpu/rotation.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/codec_pairs.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>

#include "support/cache_tensor.hpp"
#include "support/exact_numbers.hpp"

namespace {

using namespace strata::cpu::detail;  // what the kernels see
using support::as_size;
using support::number_stream;

/// Whether two floats are the same number, 0 and -0 among them, or both none.
bool same_number(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// Elements of a row that come out of a reader otherwise than out of the codec, and slots behind the
/// last element that would add to a sum.
template <class Codec>
std::int32_t wrong_elements(std::byte const* data, std::byte const* scales, std::int32_t n) {
  using reader = row_reader<Codec>;
  static_assert(reader::exists);
  std::vector<float> expected(as_size(n));
  Codec::decode(data, scales, n, expected.data());
  float const head_scale = strata::head_scaled_codec<Codec> ? 0.375f : 1.0f;
  std::int32_t wrong = 0;
  for (std::int32_t i = 0; i < slots_of<reader>(n); i += reader::elements) {
    float_vec x[reader::vectors];
    if (i < whole_of<reader>(n))
      load_group<reader>({data, scales}, i, x);
    else
      load_end<reader>({data, scales}, i, n - i, x);
    for (std::int32_t s = 0; s < reader::elements; ++s) {
      auto const got = x[s / float_lanes::count][s % float_lanes::count];
      auto const element = element_of<reader>(i + s);
      if (element < n)
        wrong += !same_number(got * reader::unit * head_scale, expected[as_size(element)]);
      else
        wrong += got != 0 && !std::isnan(expected.back());
    }
  }
  return wrong;
}

std::vector<std::byte> random_bytes(std::int64_t count, std::uint64_t seed) {
  number_stream stream(seed);
  std::vector<std::byte> bytes(as_size(count));
  for (auto& b : bytes) b = static_cast<std::byte>(stream.below(256));
  return bytes;
}

/// Rows of any bytes, which end where their memory does, with any scales that a codec may write.
template <class Codec>
void check_reader() {
  for (std::int32_t n = 1; n <= 300; ++n) {
    CAPTURE(n);
    auto const data = random_bytes(Codec::row_bytes(n), static_cast<std::uint64_t>(n));
    auto scales = random_bytes(Codec::scale_bytes(n), static_cast<std::uint64_t>(n) + 1000);
    if (strata::head_scaled_codec<Codec>) {
      float const scale = 0.375f;
      std::memcpy(scales.data(), &scale, sizeof(scale));
    }
    CHECK(wrong_elements<Codec>(data.data(), scales.data(), n) == 0);
  }
}

/// As a sum of n products, block by block: in row i and column j the sign is that of the number of
/// bits that i and j share.
std::vector<double> rotated(std::vector<float> const& x) {
  std::vector<double> y(x.size());
  for (std::size_t first = 0; first < x.size();) {
    auto const length = std::min<std::size_t>(std::bit_floor(x.size() - first), 256);
    for (std::size_t i = 0; i < length; ++i)
      for (std::size_t j = 0; j < length; ++j)
        y[first + i] += (std::popcount(i & j) % 2 == 0 ? 1.0 : -1.0) * double{x[first + j]} /
                        std::sqrt(static_cast<double>(length));
    first += length;
  }
  return y;
}

}  // namespace

TEST_CASE("row readers: every codec of the list has one") {
  strata::for_each_codec_pair(strata::named_codec_pairs(),
                              []<class K, class V>(strata::codec_pair<K, V>) {
                                static_assert(row_reader<typename stored_as<K>::codec>::exists);
                                static_assert(row_reader<V>::exists);
                              });
}

TEST_CASE("row readers: f32, f16, bf16") {
  check_reader<strata::f32_codec>();
  check_reader<strata::f16_codec>();
  check_reader<strata::bf16_codec>();
}
TEST_CASE("row readers: int8, q8_0") {
  check_reader<strata::int8_codec>();
  check_reader<strata::q8_0_codec>();
}
TEST_CASE("row readers: fp8") { check_reader<strata::fp8_codec>(); }
TEST_CASE("row readers: int4") { check_reader<strata::int4_codec>(); }

TEST_CASE("row readers: every code of fp8, in every place") {
  float const scale = 0.375f;
  std::vector<std::byte> row(256);
  for (std::int32_t off = 0; off < 256; ++off) {
    for (std::int32_t i = 0; i < 256; ++i) row[as_size(i)] = static_cast<std::byte>(i + off);
    CHECK(wrong_elements<strata::fp8_codec>(row.data(), reinterpret_cast<std::byte const*>(&scale),
                                            256) == 0);
  }
}

TEST_CASE("row readers: every number of int4, times every scale that is finite, or NaN") {
  std::vector<std::byte> row(16);
  for (std::int32_t i = 0; i < 16; ++i) row[as_size(i)] = static_cast<std::byte>(i * 16 + 15 - i);
  for (std::int32_t bits = 0; bits <= 0x7E00; ++bits) {
    if (bits >= 0x7C00 && bits < 0x7E00) continue;
    strata::float16 const scale{static_cast<std::uint16_t>(bits)};
    auto const wrong = wrong_elements<strata::int4_codec>(
        row.data(), reinterpret_cast<std::byte const*>(&scale), 32);
    if (wrong != 0) FAIL_CHECK("scale " << bits << ": " << wrong << " elements");
  }
}

TEST_CASE("rotation: rows and columns of many lengths") {
  constexpr std::int32_t columns = 2 * lanes<float>::count, stride = columns + 5;
  std::vector<std::int32_t> lengths = {63, 64, 65, 72, 80, 96, 100, 127, 128, 192, 256, 300};
  for (std::int32_t n = 1; n <= 35; ++n) lengths.push_back(n);
  for (auto const n : lengths) {
    CAPTURE(n);
    auto block = support::random_values<float>(n * stride, static_cast<std::uint64_t>(n));
    auto const before = block;
    auto const row_of = [&](std::vector<float> const& from, std::int32_t j) {
      std::vector<float> row;
      for (std::int32_t i = 0; i < n; ++i) row.push_back(from[as_size(i * stride + j)]);
      return row;
    };
    rotate_columns(block.data(), stride, n, columns);
    double worst = 0;
    for (std::int32_t j = 0; j < columns; j += columns - 1) {
      auto const exact = rotated(row_of(before, j));
      auto by_row = row_of(before, j);
      rotate_row(by_row.data(), n);
      for (auto const& got : {by_row, row_of(block, j)})
        for (std::size_t i = 0; i < got.size(); ++i)
          support::keep_worst(worst, std::abs(double{got[i]} - exact[i]));
    }
    CHECK(worst <= 8 * 0x1p-24 * std::sqrt(static_cast<double>(std::min(n, 256))));
    for (std::int32_t j = 0; j < columns; ++j) {
      auto by_row = row_of(before, j);
      rotate_row(by_row.data(), n);
      CHECK(support::same_bits(by_row, row_of(block, j)));
    }
    for (auto j = columns; j < stride; ++j)
      CHECK(support::same_bits(row_of(before, j), row_of(block, j)));
  }
}

TEST_CASE("rotation: of doubles") {
  for (std::int32_t const n : {1, 3, 8, 80, 128, 300}) {
    auto const x = support::random_values<float>(n, static_cast<std::uint64_t>(n));
    std::vector<double> row(x.begin(), x.end());
    auto const exact = rotated(x);
    rotate_row(row.data(), n);
    double worst = 0;
    for (std::size_t i = 0; i < row.size(); ++i)
      support::keep_worst(worst, std::abs(row[i] - exact[i]));
    CHECK(worst < 1e-14);
  }
}
