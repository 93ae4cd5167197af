// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The fp8 element against its definition and a search over all 256 of its values, in double: no bit
// tricks here. The codec against both, and against what ml_dtypes makes of every 16-bit number.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <strata/cache/footprint.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/writer.hpp>

#include "support/exact_numbers.hpp"

using strata::bfloat16;
using strata::float16;
using strata::float8_e4m3;
using strata::fp8_codec;
using strata::to_float8_e4m3;

static_assert(sizeof(float8_e4m3) == 1 && std::is_trivially_copyable_v<float8_e4m3>);
static_assert(!std::is_convertible_v<float, float8_e4m3>);
static_assert(to_float8_e4m3(1.0f).bits == 0x38 && to_float(float8_e4m3{0xc0}) == -2.0f);
static_assert(strata::head_scaled_codec<fp8_codec> && !strata::span_codec<fp8_codec>);
static_assert(!strata::head_scaled_codec<strata::int8_codec>);
static_assert(!strata::head_scaled_codec<strata::bf16_codec>);
static_assert(strata::storable<float16, fp8_codec> && strata::storable<bfloat16, fp8_codec>);
static_assert(!fp8_codec::exact);
static_assert(fp8_codec::row_bytes(128) == 128 && fp8_codec::row_bytes(0) == 0);
static_assert(fp8_codec::scale_bytes(128) == 4 && fp8_codec::scale_bytes(1) == 4);
// The scale is no token's.
static_assert(strata::k_bytes<fp8_codec>({8, 128, 80}) == 8 * 128);
static_assert(strata::v_bytes<fp8_codec>({8, 128, 80}) == 8 * 80);

namespace {

constexpr float largest_float = std::numeric_limits<float>::max();

/// What 8 bits mean: sign, 4 bits of exponent, 3 of fraction.
double meaning_of_fp8(int bits) {
  auto const sign = bits >= 0x80 ? -1.0 : 1.0;
  auto const exponent = bits % 0x80 / 8, fraction = bits % 8;
  if (exponent == 15 && fraction == 7) return std::nan("");
  if (exponent == 0) return sign * std::ldexp(fraction, -9);
  return sign * std::ldexp(8 + fraction, exponent - 10);
}

/// The code whose value is nearest to x, of two the even one, and the greatest for all that is
/// greater.
int nearest_fp8(double x) {
  auto const sign = std::signbit(x) ? 0x80 : 0;
  if (std::isnan(x)) return sign | 0x7F;
  int best = 0;
  for (int code = 1; code < 0x7F; ++code) {
    auto const here = std::abs(std::abs(x) - meaning_of_fp8(code));
    auto const there = std::abs(std::abs(x) - meaning_of_fp8(best));
    if (here < there || (here == there && code % 2 == 0)) best = code;
  }
  return sign | (std::isinf(x) ? 0x7E : best);
}

/// A row as the codec leaves it; a byte on either side must not change. Addresses are odd.
template <class T>
std::vector<int> fp8_codes(std::vector<T> const& in, float scale = 1) {
  std::vector<std::byte> row(in.size() + 2, std::byte{0xa5});
  std::byte scales[5];
  std::memcpy(scales + 1, &scale, 4);
  fp8_codec::encode(in.data(), static_cast<std::int32_t>(in.size()), row.data() + 1, scales + 1);
  CHECK((row.front() == std::byte{0xa5} && row.back() == std::byte{0xa5}));
  std::vector<int> codes;
  for (std::size_t i = 1; i <= in.size(); ++i) codes.push_back(static_cast<int>(row[i]));
  return codes;
}

template <class T = float>
std::vector<T> decoded_fp8(std::vector<int> const& codes, float scale = 1) {
  std::vector<std::byte> row(1);
  for (auto const code : codes) row.push_back(static_cast<std::byte>(code));
  std::byte scales[5];
  std::memcpy(scales + 1, &scale, 4);
  std::vector<T> out(codes.size() + 1, T{77});
  fp8_codec::decode(row.data() + 1, scales + 1, static_cast<std::int32_t>(codes.size()),
                    out.data());
  CHECK(out.back() == T{77});
  out.pop_back();
  return out;
}

/// How many of the codes are not those nearest to what was encoded.
template <class T>
int wrong_codes(std::vector<T> const& in) {
  auto const codes = fp8_codes(in);
  int wrong = 0;
  for (std::size_t i = 0; i < in.size(); ++i) {
    double x;
    if constexpr (std::floating_point<T>)
      x = static_cast<double>(in[i]);
    else
      x = static_cast<double>(to_float(in[i]));
    if (codes[i] != nearest_fp8(x) && wrong++ == 0) FAIL_CHECK("the first wrong one is ", x);
  }
  return wrong;
}

std::vector<int> all_codes() {
  std::vector<int> codes;
  for (int code = 0; code < 256; ++code) codes.push_back(code);
  return codes;
}

/// All numbers of 16 bits.
template <class T>
std::vector<T> all_halves() {
  std::vector<T> all;
  for (std::uint32_t i = 0; i < 65536; ++i) all.push_back(T{static_cast<std::uint16_t>(i)});
  return all;
}

std::vector<float> const& fp8_scales() {
  static std::vector<float> const all{1,      0.5f,      3,        1.0f / 3, 0.01f,
                                      1e-20f, 0x1p-117f, 0x1p119f, 448,      0x1.fffffep-9f};
  return all;
}

/// FNV-1a.
std::uint64_t digest(std::vector<int> const& bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (auto const x : bytes) hash = (hash ^ static_cast<std::uint64_t>(x)) * 0x100000001b3;
  return hash;
}

}  // namespace

TEST_CASE("fp8: all 256 codes mean what the definition says") {
  int wrong = 0;
  for (auto const code : all_codes())
    wrong += !support::same_with_sign(to_float(float8_e4m3{static_cast<std::uint8_t>(code)}),
                                      meaning_of_fp8(code));
  CHECK(wrong == 0);
  CHECK(meaning_of_fp8(0x7E) == 448);
  CHECK(meaning_of_fp8(0x08) == 0x1p-6);
  CHECK(meaning_of_fp8(0x01) == 0x1p-9);
}

TEST_CASE("fp8: all 256 codes survive a round trip, whatever the scale") {
  for (auto const scale : fp8_scales()) {
    CAPTURE(scale);
    CHECK(fp8_codes(decoded_fp8(all_codes(), scale), scale) == all_codes());
    CHECK(fp8_codes(decoded_fp8<double>(all_codes(), scale), scale) == all_codes());
  }
}

TEST_CASE("fp8: all numbers of 16 bits go to the nearest") {
  CHECK(wrong_codes(all_halves<float16>()) == 0);
  CHECK(wrong_codes(all_halves<bfloat16>()) == 0);
}

TEST_CASE("fp8: half-way between neighbours, the even one, and one step beside it not") {
  std::vector<float> floats;
  std::vector<double> doubles;
  for (int code = 0; code < 0x7E; ++code) {
    auto const middle = (meaning_of_fp8(code) + meaning_of_fp8(code + 1)) / 2;
    auto const even = code % 2 == 0 ? code : code + 1;
    for (auto const sign : {1.0, -1.0}) {
      auto const x = sign * middle;
      CHECK(fp8_codes(std::vector{x})[0] % 0x80 == even);
      for (auto const to : {0.0, sign * 1e9}) {
        floats.push_back(std::nextafter(static_cast<float>(x), static_cast<float>(to)));
        // As a float it would be the middle itself.
        doubles.push_back(std::nextafter(x, to));
        CHECK(static_cast<float>(doubles.back()) == static_cast<float>(x));
      }
      floats.push_back(static_cast<float>(x));
      doubles.push_back(x);
    }
  }
  CHECK(wrong_codes(floats) == 0);
  CHECK(wrong_codes(doubles) == 0);
}

TEST_CASE("fp8: floats and doubles of every size") {
  std::mt19937 engine(1);
  std::vector<float> floats;
  std::vector<double> doubles;
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent)
    for (int i = 0; i < 20; ++i) {
      auto const rest = static_cast<std::uint32_t>(engine()) & 0x807FFFFF;
      floats.push_back(std::bit_cast<float>(rest | exponent << 23));
    }
  for (int exponent = -1074; exponent < 1024; ++exponent)
    for (auto const x : {1.0, 1.0625, -1.1875, 1.9375})
      doubles.push_back(std::ldexp(std::nextafter(x, 9.0), exponent));
  CHECK(wrong_codes(floats) == 0);
  CHECK(wrong_codes(doubles) == 0);
}

TEST_CASE("fp8: beyond 448 all is 448") {
  auto const codes = fp8_codes(std::vector{448.0f, 464.0f, std::nextafter(464.0f, INFINITY), 480.0f,
                                           1e30f, largest_float, INFINITY, -464.5f, -INFINITY});
  CHECK(codes == std::vector<int>{0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0xFE, 0xFE});
  CHECK(fp8_codes(std::vector{1e300, -HUGE_VAL}) == std::vector<int>{0x7E, 0xFE});
  // The quotient overflows where x does not.
  CHECK(fp8_codes(std::vector{largest_float, -1.0f}, 0x1p-130f) == std::vector<int>{0x7E, 0xFE});
  CHECK(fp8_codes(std::vector{897.0f, 895.0f}, 2) == std::vector<int>{0x7E, 0x7E});
}

TEST_CASE("fp8: zeros keep their sign, and NaN is no number and spoils no other") {
  CHECK(fp8_codes(std::vector{0.0f, -0.0f, 0x1p-10f, -0x1p-11f}, 1) ==
        std::vector<int>{0x00, 0x80, 0x00, 0x80});
  for (auto const bits : {0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu, 0x7fc00000u}) {
    auto const nan = std::bit_cast<float>(bits);
    auto const codes = fp8_codes(std::vector{1.0f, nan, 2.0f}, 0.5f);
    CHECK(codes == std::vector<int>{0x40, std::signbit(nan) ? 0xFF : 0x7F, 0x48});
    auto const out = decoded_fp8(codes, 0.5f);
    CHECK((out[0] == 1 && std::isnan(out[1]) && out[2] == 2));
  }
  CHECK(fp8_codes(std::vector{std::nan(""), 3.0})[0] == 0x7F);
}

TEST_CASE("fp8: an element is the nearest to x / scale, and off by no more than it says") {
  std::mt19937 engine(2);
  std::normal_distribution<float> normal;
  for (auto const scale : fp8_scales()) {
    CAPTURE(scale);
    if (scale > 1e30f) continue;  // x would overflow
    auto const unit = static_cast<double>(scale);
    std::vector<float> in;
    for (int i = 0; i < 3000; ++i)
      in.push_back(static_cast<float>(normal(engine) * std::ldexp(unit, i % 20 - 11)));
    auto const codes = fp8_codes(in, scale);
    auto const out = decoded_fp8(codes, scale);
    auto const doubles = decoded_fp8<double>(codes, scale);
    int wrong = 0;
    for (std::size_t i = 0; i < in.size(); ++i) {
      auto const x = static_cast<double>(in[i]), y = static_cast<double>(out[i]);
      // A quotient of floats that is rounded to double first is rounded to float alike.
      wrong += codes[i] != nearest_fp8(static_cast<double>(static_cast<float>(x / unit)));
      wrong += out[i] != static_cast<float>(meaning_of_fp8(codes[i]) * unit);
      wrong += doubles[i] != y;
      if (std::abs(x) > 448 * unit) continue;
      auto const bound = std::abs(x) < unit / 64 ? unit * 0x1p-10 : std::abs(x) * 0x1p-4;
      wrong += std::abs(x - y) > bound + std::abs(x) * 0x1p-23;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("fp8: doubles are divided in double and rounded once") {
  // 17 / 16 lies half-way between 1 and 9 / 8; the even code is that of 1.
  CHECK(fp8_codes(std::vector{3 * 1.0625}, 3)[0] == 0x38);
  CHECK(fp8_codes(std::vector{3 * 1.0625 * (1 + 0x1p-40)}, 3)[0] == 0x39);
  CHECK(fp8_codes(std::vector{3 * 1.0625 * (1 - 0x1p-40)}, 3)[0] == 0x38);
  CHECK(fp8_codes(std::vector{3 * 1.1875 * (1 - 0x1p-40)}, 3)[0] == 0x39);
  CHECK(fp8_codes(std::vector{3 * 1.1875}, 3)[0] == 0x3A);
}

TEST_CASE_TEMPLATE("fp8: rows of 16 bits are those of their floats", T, float16, bfloat16) {
  std::vector<float> floats;
  auto const all = all_halves<T>();
  for (auto const x : all) floats.push_back(to_float(x));
  for (auto const scale : {1.0f, 0.3f, 7e-5f})
    CHECK(fp8_codes(all, scale) == fp8_codes(floats, scale));
}

// Made by float8_e4m3fn of the Python package ml_dtypes 0.6.0. It does not saturate: numbers were
// clipped to 448 first, and NaN left out.
TEST_CASE("fp8: as ml_dtypes has it") {
  auto const codes_of = [](auto const& all) {
    std::vector<float> numbers;
    for (auto const x : all)
      if (!std::isnan(to_float(x))) numbers.push_back(to_float(x));
    return fp8_codes(numbers);
  };
  CHECK(digest(codes_of(all_halves<float16>())) == 0xaf47090016b81063);
  CHECK(digest(codes_of(all_halves<bfloat16>())) == 0xd126f2d8d2ed16d3);
  std::vector<int> bytes;  // of the floats that all codes but NaN mean, the lowest first
  for (auto const x : decoded_fp8(all_codes()))
    for (int i = 0; i < 4 && !std::isnan(x); ++i)
      bytes.push_back(static_cast<int>(std::bit_cast<std::uint32_t>(x) >> 8 * i & 0xFF));
  CHECK(digest(bytes) == 0x9d09ddc37a47fa25);
}
