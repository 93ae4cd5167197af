// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// int4 against its definition in double, at the edges, and rotated.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <strata/cache/footprint.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rotated_codec.hpp>
#include <strata/cache/writer.hpp>

#include "support/span_rows.hpp"

using strata::int4_codec;
using rotated_int4 = strata::rotated_codec<int4_codec>;

static_assert(strata::named_codec<int4_codec> && strata::named_codec<rotated_int4>);
static_assert(rotated_int4::name == "rot_int4");
static_assert(!int4_codec::exact && !rotated_int4::exact);
static_assert(int4_codec::row_bytes(128) == 64 && int4_codec::scale_bytes(128) == 8);
static_assert(int4_codec::row_bytes(33) == 17 && int4_codec::scale_bytes(33) == 4);
static_assert(int4_codec::row_bytes(0) == 0 && int4_codec::row_bytes(1) == 1);
static_assert(int4_codec::row_bytes(std::numeric_limits<std::int32_t>::max()) == 1 << 30);
static_assert(strata::k_bytes<rotated_int4>({8, 128, 128}) == 8 * 72);
static_assert(strata::storable<strata::float16, int4_codec>);
static_assert(strata::storable<strata::bfloat16, rotated_int4>);

using support::expected_scale;
using support::largest_of;
using support::random_row;

namespace {

/// What a codec makes of a row; what is around its bytes is checked.
template <class Codec, class T>
std::vector<T> through_int4(std::vector<T> const& in) {
  auto const n = static_cast<std::int32_t>(in.size());
  constexpr auto untouched = std::byte{0xa5};
  std::vector<std::byte> row(static_cast<std::size_t>(Codec::row_bytes(n)) + 2, untouched);
  std::vector<std::byte> scales(static_cast<std::size_t>(Codec::scale_bytes(n)) + 2, untouched);
  Codec::encode(in.data(), n, row.data() + 1, scales.data() + 1);
  for (auto const* memory : {&row, &scales}) {
    CHECK(memory->front() == untouched);
    CHECK(memory->back() == untouched);
  }
  std::vector<T> out(in.size() + 1, T{77});
  Codec::decode(row.data() + 1, scales.data() + 1, n, out.data());
  CHECK(out.back() == T{77});
  out.pop_back();
  // What was read, stored again, gives the same bytes.
  if constexpr (std::is_same_v<Codec, int4_codec>) {
    auto again = row;
    Codec::encode(out.data(), n, again.data() + 1, scales.data() + 1);
    CHECK(again == row);
  }
  return out;
}

double norm_of(std::vector<float> const& x) {
  double sum = 0;
  for (auto const e : x) sum += double{e} * e;
  return std::sqrt(sum);
}
double distance(std::vector<float> const& a, std::vector<float> const& b) {
  std::vector<float> difference(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return norm_of(difference);
}

std::int32_t const int4_sizes[] = {1, 2, 7, 31, 32, 33, 48, 64, 80, 96, 100, 128, 256, 300};

}  // namespace

TEST_CASE("int4: every element is the nearest step of its span") {
  for (auto const n : int4_sizes)
    for (int exponent = -9; exponent <= 14; ++exponent) {
      CAPTURE(n);
      CAPTURE(exponent);
      auto const in = random_row(n, static_cast<std::uint32_t>(100 * n + exponent + 50), exponent);
      auto const out = through_int4<int4_codec>(in);
      int wrong = 0;
      for (std::size_t i = 0; i < in.size(); ++i) {
        auto const largest = largest_of(in, i), scale = expected_scale<7>(largest);
        auto const steps = std::round(static_cast<double>(static_cast<float>(in[i] / scale)));
        wrong += double{out[i]} != std::clamp(steps, -7.0, 7.0) * scale;
        auto const error = std::abs(double{out[i]} - double{in[i]});
        wrong += error > scale / 2 * (1 + 0x1p-16);
        if (largest >= 0.00043) wrong += error > largest / 14 * (1 + 0x1p-11) * (1 + 0x1p-16);
      }
      CHECK(wrong == 0);
    }
}

TEST_CASE("int4: small spans are as near as their scales can be") {
  for (int exponent = -30; exponent < -9; ++exponent) {
    auto const in = random_row(64, static_cast<std::uint32_t>(exponent + 100), exponent);
    std::vector<std::byte> row(32), scales(4);
    int4_codec::encode(in.data(), 64, row.data(), scales.data());
    std::vector<float> out(64);
    int4_codec::decode(row.data(), scales.data(), 64, out.data());
    for (std::size_t i = 0; i < 64; ++i)
      CHECK(std::abs(double{out[i]} - double{in[i]}) <=
            largest_of(in, i) / 14 * (1 + 0x1p-11) * (1 + 0x1p-16) + 0x1p-25);
  }
}

TEST_CASE("int4: zeros, ends of the range, and what is no number") {
  CHECK(through_int4<int4_codec>(std::vector<float>(40)) == std::vector<float>(40));
  std::vector<float> const exact = {-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  CHECK(through_int4<int4_codec>(exact) == exact);
  std::vector<double> const doubles(exact.begin(), exact.end());
  CHECK(through_int4<int4_codec>(doubles) == doubles);
  for (auto const bad :
       {INFINITY, -INFINITY, std::numeric_limits<float>::quiet_NaN(), 7 * 65520.F}) {
    std::vector<float> in(70, 1);
    in[40] = bad;
    std::vector<std::byte> row(35), scales(6);
    int4_codec::encode(in.data(), 70, row.data(), scales.data());
    std::vector<float> out(70);
    int4_codec::decode(row.data(), scales.data(), 70, out.data());
    for (std::size_t i = 0; i < 70; ++i) CHECK(std::isnan(out[i]) == (i >= 32 && i < 64));
  }
  // The greatest that has a scale.
  std::vector<float> const great(3, 65504.F * 7);
  CHECK(through_int4<int4_codec>(great) == great);
}

TEST_CASE("the rotation is orthonormal, and its own inverse") {
  for (auto const n : int4_sizes) {
    CAPTURE(n);
    auto const x = random_row(n, static_cast<std::uint32_t>(n)),
               y = random_row(n, static_cast<std::uint32_t>(n + 1));
    auto a = x, b = y;
    strata::hadamard_rotate(a.data(), n);
    strata::hadamard_rotate(b.data(), n);
    double before = 0, after = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      before += double{x[i]} * y[i];
      after += double{a[i]} * b[i];
    }
    CHECK(std::abs(after - before) <= 1e-5 * norm_of(x) * norm_of(y));
    CHECK(norm_of(a) == doctest::Approx(norm_of(x)).epsilon(1e-6));
    strata::hadamard_rotate(a.data(), n);
    CHECK(distance(a, x) <= 1e-6 * norm_of(x));
  }
  // By its definition: row r of a block of 8 has the sign of the parity of r & c.
  for (int r = 0; r < 8; ++r) {
    double x[8] = {};
    x[r] = 1;
    strata::hadamard_rotate(x, 8);
    for (int c = 0; c < 8; ++c) {
      int const both = r & c;
      bool const odd = (both ^ both >> 1 ^ both >> 2) % 2 != 0;
      CHECK(x[c] == doctest::Approx((odd ? -1 : 1) / std::sqrt(8.0)).epsilon(1e-15));
    }
  }
  // 80 are a block of 64 and one of 16.
  std::vector<double> x(80);
  x[70] = 1;
  strata::hadamard_rotate(x.data(), 80);
  for (std::size_t i = 0; i < 80; ++i) CHECK(std::abs(x[i]) == (i < 64 ? 0 : .25));
}

TEST_CASE("rotated int4 comes back, with an error that is spread") {
  for (auto const n : int4_sizes) {
    CAPTURE(n);
    auto const in = random_row(n, static_cast<std::uint32_t>(n + 7));
    auto const out = through_int4<rotated_int4>(in);
    // Of each rotated span half a step at most, in norm: 1 / 14 of its greatest magnitude, times
    // sqrt(32); the rotation keeps norms.
    auto rotated = in;
    for (std::int32_t first = 0; first < n; first += 256)
      strata::hadamard_rotate(rotated.data() + first, std::min(n - first, 256));
    double bound = 0;
    for (std::size_t i = 0; i < in.size(); ++i)
      bound += std::pow(largest_of(rotated, i) / 14 * (1 + 0x1p-10), 2);
    CHECK(distance(in, out) <= std::sqrt(bound) + 1e-5 * norm_of(in));
  }
}

// A channel 40 times as great as the rest, as K has: the others of its span lose all their bits, and
// keep most of them when rotated.
TEST_CASE("what stands out spoils its span, and not when it is rotated") {
  double plain = 0, rotated = 0;
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    auto in = random_row(128, seed);
    in[37] = 40;
    auto error = [&](std::vector<float> const& out) {
      double sum = 0;  // of its neighbours
      for (std::size_t i = 32; i < 64; ++i)
        if (i != 37) sum += std::pow(double{out[i]} - double{in[i]}, 2);
      return sum / 31;
    };
    plain += error(through_int4<int4_codec>(in)) / 50;
    rotated += error(through_int4<rotated_int4>(in)) / 50;
  }
  CHECK(plain > 0.8);     // zeros: the variance itself is 1
  CHECK(rotated < 0.15);  // steps of about (40 / 11.3 + 2) / 7
}
