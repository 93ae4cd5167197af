// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <strata/cache/codec.hpp>

using strata::bf16_codec;
using strata::f16_codec;
using strata::f32_codec;
using strata::f64_codec;

static_assert(strata::kv_codec<f64_codec> && strata::kv_codec<f32_codec>);
static_assert(strata::kv_codec<f16_codec> && strata::kv_codec<bf16_codec>);
static_assert(!strata::kv_codec<float>);
static_assert(f64_codec::exact && f32_codec::exact && !f16_codec::exact && !bf16_codec::exact);
static_assert(f64_codec::row_bytes(128) == 1024 && f32_codec::row_bytes(128) == 512);
static_assert(f16_codec::row_bytes(128) == 256 && bf16_codec::row_bytes(128) == 256);
static_assert(f16_codec::row_bytes(0) == 0);
// A row may be longer than 32 bits can say.
static_assert(f64_codec::row_bytes(std::numeric_limits<std::int32_t>::max()) ==
              8 * std::int64_t{std::numeric_limits<std::int32_t>::max()});
static_assert(f16_codec::scale_bytes(128) == 0 && f64_codec::scale_bytes(128) == 0);

namespace {

constexpr auto border_byte = std::byte{0xa5};
constexpr std::int32_t num_plain_values = 5;
// Exact in all four, save 65504.
constexpr std::array plain_values{1.0, -2.5, 0.0, 65504.0, -0.09375};

/// Encodes `in` at an address that is aligned for nothing and returns the row; checks its borders.
template <class Codec, class T>
std::vector<std::byte> encoded_plain(std::vector<T> const& in) {
  auto const n = static_cast<std::int32_t>(in.size());
  auto const bytes = static_cast<std::size_t>(Codec::row_bytes(n));
  std::vector<std::byte> memory(bytes + 2, border_byte);
  Codec::encode(in.data(), n, memory.data() + 1, nullptr);
  CHECK(memory.front() == border_byte);
  CHECK(memory.back() == border_byte);
  return {memory.begin() + 1, memory.end() - 1};
}

template <class Codec, class T>
std::vector<T> decoded_plain(std::vector<std::byte> const& row, std::int32_t n) {
  std::vector<std::byte> shifted(row.size() + 1);
  std::copy(row.begin(), row.end(), shifted.begin() + 1);
  std::vector<T> out(static_cast<std::size_t>(n) + 1, T{77});
  Codec::decode(shifted.data() + 1, nullptr, n, out.data());
  CHECK(out.back() == T{77});
  out.pop_back();
  return out;
}

template <class Element>
Element element_at(std::vector<std::byte> const& row, std::size_t i) {
  Element e;
  std::memcpy(&e, row.data() + i * sizeof e, sizeof e);
  return e;
}

}  // namespace

TEST_CASE_TEMPLATE("rows hold their elements one after the other, wherever they lie", T, float,
                   double) {
  std::vector<T> const in(plain_values.begin(), plain_values.end());
  auto const f64 = encoded_plain<f64_codec>(in);
  auto const f32 = encoded_plain<f32_codec>(in);
  auto const f16 = encoded_plain<f16_codec>(in);
  auto const bf16 = encoded_plain<bf16_codec>(in);
  for (std::size_t i = 0; i < in.size(); ++i) {
    CHECK(element_at<double>(f64, i) == static_cast<double>(in[i]));
    CHECK(element_at<float>(f32, i) == static_cast<float>(in[i]));
    CHECK(element_at<strata::float16>(f16, i) == strata::to_float16(static_cast<float>(in[i])));
    CHECK(element_at<strata::bfloat16>(bf16, i) == strata::to_bfloat16(static_cast<float>(in[i])));
  }
  CHECK(decoded_plain<f64_codec, T>(f64, num_plain_values) == in);
  CHECK(decoded_plain<f32_codec, T>(f32, num_plain_values) == in);
  CHECK(decoded_plain<f16_codec, T>(f16, num_plain_values) == in);
  auto rounded = in;
  rounded[3] = 65536;  // of 8 significant bits
  CHECK(decoded_plain<bf16_codec, T>(bf16, num_plain_values) == rounded);
}

TEST_CASE_TEMPLATE("a row of no elements is nothing", Codec, f64_codec, f32_codec, f16_codec,
                   bf16_codec) {
  CHECK(encoded_plain<Codec>(std::vector<float>{}).empty());
  CHECK(decoded_plain<Codec, double>({}, 0).empty());
}

TEST_CASE_TEMPLATE("exact codecs keep every float, the others do not", Codec, f64_codec, f32_codec,
                   f16_codec, bf16_codec) {
  std::vector<float> const hard{0.1f, 1 + 0x1p-23f, std::numeric_limits<float>::max(),
                                std::numeric_limits<float>::denorm_min(),
                                -std::numeric_limits<float>::infinity()};
  CHECK((decoded_plain<Codec, float>(encoded_plain<Codec>(hard), num_plain_values) == hard) ==
        Codec::exact);
}

TEST_CASE("double precision survives f64 only") {
  std::vector<double> const in{0.1, 1 + 0x1p-52};
  CHECK(decoded_plain<f64_codec, double>(encoded_plain<f64_codec>(in), 2) == in);
  CHECK(decoded_plain<f32_codec, double>(encoded_plain<f32_codec>(in), 2) ==
        std::vector<double>{static_cast<double>(0.1f), 1});
}
