// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The 16-bit formats against their definitions in plain double arithmetic: no bit tricks here.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <strata/cache/element.hpp>

#include "support/exact_numbers.hpp"

using strata::bfloat16;
using strata::float16;
using strata::to_bfloat16;
using strata::to_float;
using strata::to_float16;

static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);
static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);
static_assert(!std::is_convertible_v<float16, bfloat16> && !std::is_convertible_v<float, float16>);
static_assert(to_float16(1.0f).bits == 0x3c00 && to_float(float16{0xc000}) == -2.0f);
static_assert(to_bfloat16(1.0f).bits == 0x3f80 && to_float(bfloat16{0xc000}) == -2.0f);

namespace {

/// A binary format with that many fraction bits whose normal numbers begin at 2^lowest and whose
/// numbers all lie below 2^end.
struct float_format {
  int fraction_bits, lowest, end;
};
constexpr float_format half_format{10, -14, 16}, brain_format{7, -126, 128};

/// x rounded to the nearest number of a format, ties to the even one, as the definition says.
double rounded_to(double x, float_format f) {
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  auto const exponent = std::max(std::ilogb(x), f.lowest);
  auto const unit = std::ldexp(1.0, exponent - f.fraction_bits);
  auto const value = std::nearbyint(x / unit) * unit;  // to even is the default mode
  auto const limit = std::ldexp(1.0, f.end);
  return std::abs(value) < limit ? value : std::copysign(limit * HUGE_VAL, x);
}

/// What 16 bits mean in a format.
double meaning_of_half(std::uint16_t bits, float_format f) {
  auto const sign = bits >= 0x8000 ? -1.0 : 1.0;
  auto const fraction_range = 1 << f.fraction_bits;
  auto const fraction = bits % fraction_range;
  auto const exponent = bits % 0x8000 / fraction_range;
  auto const special = f.end - f.lowest + 1;  // the highest exponent
  if (exponent == special) return fraction == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(fraction, f.lowest - f.fraction_bits);
  return sign * std::ldexp(fraction_range + fraction, exponent - 1 + f.lowest - f.fraction_bits);
}

bool converts(float x) {
  return support::same_with_sign(to_float(to_float16(x)), rounded_to(x, half_format)) &&
         support::same_with_sign(to_float(to_bfloat16(x)), rounded_to(x, brain_format));
}

/// Floats at all exponents with the fractions where rounding turns over, and random ones.
std::vector<float> samples() {
  std::vector<std::uint32_t> fractions{0, 1, 2, 0x400000, 0x7ffffe, 0x7fffff};
  for (std::uint32_t const tie : {0x1000u, 0x8000u})  // half of the last place of each format
    for (std::uint32_t const odd : {0u, 2 * tie, 4 * tie, 0x7fffff / (2 * tie) * 2 * tie})
      for (std::uint32_t const near : {tie - 1, tie, tie + 1}) fractions.push_back(odd + near);
  std::mt19937 bits(1);
  for (int i = 0; i < 40; ++i) fractions.push_back(static_cast<std::uint32_t>(bits()) & 0x7fffff);
  std::vector<float> values;
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent)
    for (auto const fraction : fractions)
      for (std::uint32_t const sign : {0u, 0x80000000u})
        values.push_back(std::bit_cast<float>(sign | exponent << 23 | (fraction & 0x7fffff)));
  for (int i = 0; i < 200000; ++i)
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits())));
  return values;
}

}  // namespace

TEST_CASE("all 65536 values of both formats mean what their definitions say") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    auto const bits = static_cast<std::uint16_t>(i);
    wrong += !support::same_with_sign(to_float(float16{bits}), meaning_of_half(bits, half_format));
    wrong +=
        !support::same_with_sign(to_float(bfloat16{bits}), meaning_of_half(bits, brain_format));
  }
  CHECK(wrong == 0);
}

TEST_CASE("all 65536 values of both formats survive a round trip") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    auto const bits = static_cast<std::uint16_t>(i);
    auto const h = to_float16(to_float(float16{bits}));
    auto const b = to_bfloat16(to_float(bfloat16{bits}));
    // Of a NaN the sign survives and that it is one.
    if (std::isnan(meaning_of_half(bits, half_format)))
      wrong += !std::isnan(meaning_of_half(h.bits, half_format)) || (h.bits ^ bits) >> 15;
    else
      wrong += h != float16{bits};
    if (std::isnan(meaning_of_half(bits, brain_format)))
      wrong += !std::isnan(meaning_of_half(b.bits, brain_format)) || (b.bits ^ bits) >> 15;
    else
      wrong += b != bfloat16{bits};
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats of every size are rounded to nearest, ties to even") {
  int wrong = 0;
  for (auto const x : samples())
    if (!converts(x) && wrong++ == 0) FAIL_CHECK("the first wrong one is ", x);
  CHECK(wrong == 0);
}

TEST_CASE("between any two neighbours of float16, the middle goes to the even one") {
  int wrong = 0;
  for (std::uint16_t bits = 0; bits < 0x7c00; ++bits) {
    auto const above = static_cast<std::uint16_t>(bits + 1);
    auto const step =
        std::ldexp(1.0, std::max(std::ilogb(meaning_of_half(bits, half_format)), -14) - 11);
    auto const middle = static_cast<float>(meaning_of_half(bits, half_format) + step);
    auto const even = bits % 2 == 0 ? bits : above;
    wrong += to_float16(middle).bits != even;
    wrong += to_float16(-middle).bits != (even | 0x8000);
    wrong += to_float16(std::nextafter(middle, 0.0f)).bits != bits;
    wrong += to_float16(std::nextafter(middle, HUGE_VALF)).bits != above;
  }
  CHECK(wrong == 0);
}

TEST_CASE("float16 overflows at 65520, bfloat16 half a place below 2^128") {
  CHECK(to_float16(65504.0f).bits == 0x7bff);
  CHECK(to_float16(std::nextafter(65520.0f, 0.0f)).bits == 0x7bff);
  CHECK(to_float16(65520.0f).bits == 0x7c00);
  CHECK(to_float16(-65520.0f).bits == 0xfc00);
  CHECK(to_float16(std::numeric_limits<float>::max()).bits == 0x7c00);
  auto const bound = static_cast<float>(0x1p128 - 0x1p119);
  CHECK(to_bfloat16(std::nextafter(bound, 0.0f)).bits == 0x7f7f);
  CHECK(to_bfloat16(bound).bits == 0x7f80);
  CHECK(to_bfloat16(-bound).bits == 0xff80);
}

TEST_CASE("zeros, infinities and NaN keep their kind and sign") {
  auto const inf = std::numeric_limits<float>::infinity();
  CHECK(to_float16(0.0f).bits == 0);
  CHECK(to_float16(-0.0f).bits == 0x8000);
  CHECK(to_bfloat16(-0.0f).bits == 0x8000);
  CHECK(to_float16(inf).bits == 0x7c00);
  CHECK(to_float16(-inf).bits == 0xfc00);
  CHECK(to_bfloat16(inf).bits == 0x7f80);
  CHECK(to_bfloat16(-inf).bits == 0xff80);
  // A NaN whose upper bits alone would be an infinity, and one that rounding would carry over.
  for (auto const bits : {0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu, 0x7fc00000u}) {
    auto const nan = std::bit_cast<float>(bits);
    CHECK(std::isnan(to_float(to_float16(nan))));
    CHECK(std::isnan(to_float(to_bfloat16(nan))));
    CHECK(std::signbit(to_float(to_float16(nan))) == std::signbit(nan));
    CHECK(std::signbit(to_float(to_bfloat16(nan))) == std::signbit(nan));
  }
}
