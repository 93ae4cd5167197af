// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The int8 codecs against their definition in double, against blocks that ggml's own tools made, and
// at the edges.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include <strata/cache/footprint.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>

#include "support/span_rows.hpp"

using strata::bfloat16;
using strata::float16;
using strata::int8_codec;
using strata::q8_0_codec;

static_assert(strata::kv_codec<int8_codec> && strata::kv_codec<q8_0_codec>);
static_assert(!strata::span_codec<strata::f16_codec>);
static_assert(strata::storable<float16, int8_codec> && strata::storable<bfloat16, q8_0_codec>);
static_assert(!int8_codec::exact && !q8_0_codec::exact);
static_assert(!int8_codec::interleaved && q8_0_codec::interleaved && int8_codec::span == 32);
static_assert(int8_codec::row_bytes(128) == 128 && int8_codec::scale_bytes(128) == 8);
static_assert(int8_codec::row_bytes(33) == 33 && int8_codec::scale_bytes(33) == 4);
static_assert(q8_0_codec::row_bytes(128) == 4 * 34 && q8_0_codec::scale_bytes(128) == 0);
static_assert(q8_0_codec::row_bytes(33) == 34 + 3 && q8_0_codec::row_bytes(31) == 33);
static_assert(int8_codec::row_bytes(0) == 0 && q8_0_codec::row_bytes(0) == 0);
constexpr auto longest_row = std::numeric_limits<std::int32_t>::max();
static_assert(q8_0_codec::row_bytes(longest_row) == longest_row + std::int64_t{2} * (1 << 26));
static_assert(strata::k_bytes<int8_codec>({8, 128, 128}) == 8 * (128 + 8));
static_assert(strata::v_bytes<q8_0_codec>({8, 128, 80}) == 8 * (80 + 6));

using support::expected_scale;
using support::largest_of;
using support::random_row;

namespace {

constexpr auto int8_border = std::byte{0xa5};

/// A row as a codec left it. Row and scales lie on odd addresses; what is around them is checked.
template <class Codec>
struct encoded_row {
  std::int32_t n;
  std::vector<std::byte> row, scales;

  template <class T>
  explicit encoded_row(std::vector<T> const& in)
      : n(static_cast<std::int32_t>(in.size())),
        row(static_cast<std::size_t>(Codec::row_bytes(n)) + 16, int8_border),
        scales(static_cast<std::size_t>(Codec::scale_bytes(n)) + 16, int8_border) {
    Codec::encode(in.data(), n, at(row), at(scales));
    CHECK(row.front() == int8_border);
    CHECK(scales.front() == int8_border);
    CHECK(std::all_of(row.end() - 15, row.end(), [](auto x) { return x == int8_border; }));
    CHECK(std::all_of(scales.end() - 15, scales.end(), [](auto x) { return x == int8_border; }));
  }

  template <class T>
  std::vector<T> decoded() const {
    std::vector<T> out(static_cast<std::size_t>(n) + 1, T{77});
    Codec::decode(row.data() + 1, scales.data() + 1, n, out.data());
    CHECK(out.back() == T{77});
    out.pop_back();
    return out;
  }
  std::vector<float> floats() const { return decoded<float>(); }

  float scale(std::int32_t i) const {
    return Codec::span_scale(row.data() + 1, scales.data() + 1, i / Codec::span);
  }
  std::int32_t number(std::int32_t i) const {
    std::int8_t x;
    std::memcpy(&x, Codec::span_data(row.data() + 1, i / Codec::span) + i % Codec::span, 1);
    return x;
  }

  friend bool operator==(encoded_row const&, encoded_row const&) = default;

 private:
  static std::byte* at(std::vector<std::byte>& memory) { return memory.data() + 1; }
};

double expected_number(float x, double scale) {
  if (scale == 0) return 0;
  auto const steps = static_cast<double>(static_cast<float>(static_cast<double>(x) / scale));
  return std::clamp(std::round(steps), -127.0, 127.0);
}

std::int32_t const int8_sizes[] = {1, 6, 31, 32, 33, 64, 80, 96, 100, 128};
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE_TEMPLATE("int8: every element is the nearest step of its span", Codec, int8_codec,
                   q8_0_codec) {
  for (auto const n : int8_sizes)
    for (int exponent = -26; exponent <= 20; ++exponent) {
      CAPTURE(n);
      CAPTURE(exponent);
      auto const in = random_row(n, static_cast<std::uint32_t>(100 * n + exponent + 50), exponent);
      encoded_row<Codec> const row(in);
      auto const out = row.floats();
      int wrong = 0;
      for (std::int32_t i = 0; i < n; ++i) {
        auto const at = static_cast<std::size_t>(i);
        auto const scale = expected_scale<127>(largest_of(in, i));
        wrong += static_cast<double>(row.scale(i)) != scale;
        wrong += row.number(i) != expected_number(in[at], scale);
        wrong += static_cast<double>(out[at]) != row.number(i) * scale;
        // Half a step, and a rounding of float where the quotient is all but half-way.
        auto const error = std::abs(static_cast<double>(out[at]) - static_cast<double>(in[at]));
        wrong += error > scale / 2 * (1 + 0x1p-16);
        wrong += largest_of(in, i) >= 0.0078 &&
                 error > largest_of(in, i) / 254 * (1 + 0x1p-11) * (1 + 0x1p-16);
      }
      CHECK(wrong == 0);
    }
}

TEST_CASE_TEMPLATE("int8: what was read, stored again, gives the same bytes", Codec, int8_codec,
                   q8_0_codec) {
  for (auto const n : int8_sizes)
    for (int exponent = -30; exponent <= 20; ++exponent) {
      auto in = random_row(n, static_cast<std::uint32_t>(n - exponent + 100), exponent);
      // Every span reaches the bound from which on this holds.
      for (std::int32_t i = 0; i < n; i += 32)
        if (largest_of(in, i) < 0x1p-10) in[static_cast<std::size_t>(i)] = 0x1p-10f;
      encoded_row<Codec> const row(in);
      CHECK(encoded_row<Codec>(row.floats()) == row);
      CHECK(encoded_row<Codec>(row.template decoded<double>()) == row);
    }
}

TEST_CASE_TEMPLATE("int8: both layouts hold the same", T, float, double, float16, bfloat16) {
  for (auto const n : int8_sizes) {
    std::vector<T> in;
    for (auto const x : random_row(n, 7)) {
      if constexpr (std::is_same_v<T, float16>) in.push_back(strata::to_float16(x));
      if constexpr (std::is_same_v<T, bfloat16>) in.push_back(strata::to_bfloat16(x));
      if constexpr (std::floating_point<T>) in.push_back(static_cast<T>(x));
    }
    std::vector<float> floats;
    for (auto const x : in) {
      if constexpr (std::floating_point<T>) floats.push_back(static_cast<float>(x));
      if constexpr (!std::floating_point<T>) floats.push_back(to_float(x));
    }
    encoded_row<int8_codec> const apart(in);
    encoded_row<q8_0_codec> const together(in);
    CHECK(encoded_row<int8_codec>(floats) == apart);
    CHECK(encoded_row<q8_0_codec>(floats) == together);
    CHECK(apart.floats() == together.floats());
    auto const doubles = together.template decoded<double>();
    CHECK(std::vector<float>(doubles.begin(), doubles.end()) == apart.floats());
    for (std::int32_t i = 0; i < n; i += 7) {
      CHECK(apart.scale(i) == together.scale(i));
      CHECK(apart.number(i) == together.number(i));
    }
  }
}

TEST_CASE("int8: a double is rounded to float first") {
  std::vector<double> const in{1.0 / 3, -0.1, 1e-300};
  CHECK(encoded_row<int8_codec>(in) ==
        encoded_row<int8_codec>(std::vector<float>{float(1.0 / 3), float(-0.1), 0}));
  auto const out = encoded_row<int8_codec>(std::vector<double>{1e300, 0}).decoded<double>();
  CHECK((std::isnan(out[0]) && std::isnan(out[1])));
}

// Made by quantize and dequantize of the Python package gguf 0.19.0, type Q8_0: blocks whose
// greatest magnitude / 127 is a float16, since ggml divides by what has not been rounded to one.
TEST_CASE("q8_0: ggml's own blocks") {
  struct block {
    int index, exponent;
    char const* hex;
  };
  block const blocks[] = {
      {0, -10, "00147f654a2f15fadfc5aa8f73583e2309eed3b99e83674c3217fce2c7ac92755b40"},
      {1, 0, "003c04e9ceb4998162482d12f8ddc2a88d71563b2106ebd1b69c81654a2f15fadfc5"},
      {2, 6, "0054886c51371c01e7ccb1977f60452b10f5dbc0a58b6e54391e04e9ceb4997d6248"},
      {3, -20, "10000bf0d6bba1866a4f341affe4caaf94815d43280ef3d8bea3886c51371c01e7cc"},
  };
  for (auto const& b : blocks) {
    CAPTURE(b.index);
    std::vector<float> in;
    for (int i = 0; i < 32; ++i)
      in.push_back(std::ldexp(float((i * 7919 + b.index * 104729) % 2033 - 1016) / 8, b.exponent));
    in[static_cast<std::size_t>(5 * b.index)] =
        std::ldexp(b.index % 2 == 0 ? 127.0f : -127.0f, b.exponent);
    std::vector<std::byte> row(34);
    q8_0_codec::encode(in.data(), 32, row.data(), nullptr);
    std::string hex;
    for (auto const x : row)
      for (auto const digit : {static_cast<unsigned>(x) / 16, static_cast<unsigned>(x) % 16})
        hex += "0123456789abcdef"[digit];
    CHECK(hex == b.hex);
  }
}

TEST_CASE("q8_0: a block that ggml would write otherwise is read alike") {
  // (i * 7919 + 104729) % 2003 - 1001, / 512, by gguf 0.19.0 as above; it read the floats below.
  char const* const hex = "c423c9bdb1a5998d81776b5f53473b2f23170bfff3e7dbcfc3b7ab9f93877d71655a";
  std::vector<std::byte> row;
  for (std::size_t i = 0; i < 68; i += 2)
    row.push_back(static_cast<std::byte>(std::stoi(std::string(hex + i, 2), nullptr, 16)));
  std::vector<float> out(32);
  q8_0_codec::decode(row.data(), nullptr, 32, out.data());
  CHECK(out[0] == -0x1.ab1cp-1f);
  CHECK(out[1] == -0x1.0426p+0f);
  CHECK(out[15] == 0x1.6538p-2f);
  CHECK(out[31] == 0x1.5d74p+0f);
}

TEST_CASE_TEMPLATE("int8: zeros", Codec, int8_codec, q8_0_codec) {
  std::vector<float> in(70, 0.0f);
  in[3] = -0.0f;
  in[65] = 5;
  encoded_row<Codec> const row(in);
  CHECK(row.scale(0) == 0);
  CHECK(row.scale(32) == 0);
  for (std::int32_t i = 0; i < 65; ++i) CHECK(row.floats()[static_cast<std::size_t>(i)] == 0);
  CHECK(row.number(3) == 0);
  CHECK(row.number(65) == 127);
}

TEST_CASE_TEMPLATE("int8: spans too small for a normal scale", Codec, int8_codec, q8_0_codec) {
  // Multiples of the smallest scale, 2^-24, come back as they are.
  std::vector<float> small;
  for (int i = -20; i <= 127; i += 7) small.push_back(std::ldexp(float(i), -24));
  CHECK(encoded_row<Codec>(small).scale(0) == 0x1p-24f);
  CHECK(encoded_row<Codec>(small).floats() == small);
  // 1/4 of it is nearest to 0, and so is the scale that 1/254 of it would have.
  for (auto const x : {0x1p-26f, std::numeric_limits<float>::denorm_min(), 1e-38f}) {
    encoded_row<Codec> const row(std::vector<float>{x, -x});
    CHECK(row.scale(0) == 0x1p-24f);
    CHECK(row.floats() == std::vector<float>{0, 0});
  }
  // 190 / 127 steps of 2^-24 are nearest to one, in which 190 does not fit.
  encoded_row<Codec> const row(std::vector<float>{190 * 0x1p-24f, -0x1p-24f});
  CHECK(row.scale(0) == 2 * 0x1p-24f);
  CHECK(row.floats() == std::vector<float>{190 * 0x1p-24f, -2 * 0x1p-24f});
}

TEST_CASE_TEMPLATE("int8: the greatest span, and beyond it", Codec, int8_codec, q8_0_codec) {
  auto const bound = 127 * 65520.0f;
  for (auto const x : {127 * 65504.0f, -127 * 65504.0f, std::nextafter(bound, 0.0f)}) {
    encoded_row<Codec> const row(std::vector<float>{x, 65504.0f, 0});
    CHECK(row.scale(0) == 65504);
    CHECK(row.floats() == std::vector<float>{std::copysign(127 * 65504.0f, x), 65504, 0});
  }
  for (auto const x : {bound, -bound, 1e30f, std::numeric_limits<float>::max()}) {
    auto const out = encoded_row<Codec>(std::vector<float>{1, x}).floats();
    CHECK((std::isnan(out[0]) && std::isnan(out[1])));
  }
}

TEST_CASE_TEMPLATE("int8: what is not finite spoils its span and no other", Codec, int8_codec,
                   q8_0_codec) {
  auto const in = random_row(80, 3);
  auto const clean = encoded_row<Codec>(in).floats();
  for (auto const bad : {INFINITY, -INFINITY, not_a_number, -not_a_number})
    for (std::size_t const where : {0, 31, 32, 50, 64, 79}) {
      auto spoilt = in;
      spoilt[where] = bad;
      encoded_row<Codec> const row(spoilt);
      auto const out = row.floats();
      for (std::size_t i = 0; i < 80; ++i) {
        bool const same_span = i / 32 == where / 32;
        CHECK((same_span ? std::isnan(out[i]) : out[i] == clean[i]));
        if (same_span) CHECK(row.number(static_cast<std::int32_t>(i)) == 0);
      }
    }
}

TEST_CASE_TEMPLATE("int8: rows side by side in blocks of any order", Codec, int8_codec,
                   q8_0_codec) {
  constexpr std::int32_t heads = 3, dim = 33, size = 4;  // rows and scales of odd sizes
  for (bool const nhd : {true, false}) {
    std::vector<std::byte> rows(static_cast<std::size_t>(2 * size * heads * Codec::row_bytes(dim)));
    std::vector<std::byte> scales(
        static_cast<std::size_t>(2 * size * heads * Codec::scale_bytes(dim)));
    auto* const apart = scales.empty() ? nullptr : scales.data();
    auto const to = nhd ? strata::nhd_blocks<Codec>(rows.data(), size, heads, dim, apart)
                        : strata::hnd_blocks<Codec>(rows.data(), size, heads, dim, apart);
    auto const row = [&](std::int32_t b, std::int32_t h, std::int32_t t) {
      return random_row(dim, static_cast<std::uint32_t>((b * heads + h) * size + t));
    };
    auto const for_all = [&](auto&& body) {
      for (std::int32_t b = 0; b < 2; ++b)
        for (std::int32_t h = 0; h < heads; ++h)
          for (std::int32_t t = 0; t < size; ++t) body(b, h, t);
    };
    for_all([&](auto b, auto h, auto t) {
      Codec::encode(row(b, h, t).data(), dim, to.at(b, h, t), to.scales_at(b, h, t));
    });
    for_all([&](auto b, auto h, auto t) {
      std::vector<float> out(dim);
      Codec::decode(to.at(b, h, t), to.scales_at(b, h, t), dim, out.data());
      CHECK(out == encoded_row<Codec>(row(b, h, t)).floats());
    });
  }
}
