// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Scores of queries that lie side by side in vectors, which some processors compute so, against sums
// in double of what the codec decodes: here on all.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/attention/cpu/stream_spread.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>

#include "support/exact_numbers.hpp"

namespace {

using namespace strata::cpu::detail;  // what the kernels see

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Keys and queries of up to 64 keys and a few queries.
template <class Codec>
struct spread_case {
  using reader = row_reader<Codec>;
  std::int32_t dim, pairs, slots;
  std::vector<float> q;           // [pairs][dim]
  std::vector<std::byte> keys;    // [stream_keys][row_bytes]
  std::vector<std::byte> scales;  // [stream_keys][scale_bytes]
  std::vector<std::byte const*> rows, scale_rows;

  spread_case(std::int32_t d, std::int32_t n) : dim(d), pairs(n), slots(slots_of<reader>(d)) {
    auto const seed = static_cast<std::uint64_t>(1000 * dim + pairs);
    q = support::random_values<float>(size(pairs * dim), seed);
    auto const floats = support::random_values<float>(size(stream_keys * dim), seed + 1);
    keys.resize(size(stream_keys * Codec::row_bytes(dim)));
    scales.resize(size(stream_keys * Codec::scale_bytes(dim)) + 1);
    for (std::int32_t t = 0; t < stream_keys; ++t) {
      rows.push_back(keys.data() + t * Codec::row_bytes(dim));
      scale_rows.push_back(scales.data() + t * Codec::scale_bytes(dim));
      Codec::encode(floats.data() + t * dim, dim, keys.data() + t * Codec::row_bytes(dim),
                    scales.data() + t * Codec::scale_bytes(dim));
    }
  }

  /// [pairs][stream_keys]
  std::vector<float> scores(std::int32_t count) {
    auto const padded = ceil_divide(pairs, stream_pairs) * stream_pairs;
    auto const nan = std::numeric_limits<float>::quiet_NaN();  // nothing that is left is used
    std::vector<float> spread(size(padded * slots), nan), row(size(slots)),
        copy(16 * size(slots), nan), to(size(pairs * stream_keys));
    for (std::int32_t first = 0; first < pairs; first += stream_pairs)
      spread_pairs(smaller(pairs - first, stream_pairs), slots, row.data(),
                   spread.data() + first * slots, [&](std::int32_t p, float* out) {
                     for (std::int32_t s = 0; s < slots; ++s) {
                       auto const i = element_of<reader>(s);
                       out[s] = i < dim ? q[size((first + p) * dim + i)] * reader::unit : 0.0f;
                     }
                   });
    std::vector<std::byte const*> const lines(1, keys.data());
    stream_asks asks(lines.data(), 1, 1);
    score_spread_tile<reader>({rows.data(), scale_rows.data(), dim}, asks, count, pairs,
                              spread.data(), slots, copy.data(), to.data());
    return to;
  }

  /// How many of the first `count` keys' scores are off by more than the sum's rounding.
  std::int32_t wrong(std::int32_t count) {
    auto const found = scores(count);
    std::vector<float> key(size(dim));
    std::int32_t wrong = 0;
    for (std::int32_t t = 0; t < count; ++t) {
      Codec::decode(rows[size(t)], scale_rows[size(t)], dim, key.data());
      for (std::int32_t p = 0; p < pairs; ++p) {
        double sum = 0, magnitude = 0;
        for (std::int32_t i = 0; i < dim; ++i) {
          double const product = double{q[size(p * dim + i)]} * double{key[size(i)]};
          sum += product, magnitude += std::abs(product);
        }
        auto const off = std::abs(double{found[size(p * stream_keys + t)]} - sum);
        wrong += !(off <= (dim / 4 + 4) * 0x1p-24 * magnitude);
      }
    }
    return wrong;
  }
};

template <class Codec>
void check_spread() {
  for (std::int32_t const dim : {1, 31, 64, 80, 128, 200})
    for (std::int32_t const pairs : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 32}) {
      spread_case<Codec> c(dim, pairs);
      for (std::int32_t const count : {1, 4, 15, 16, 17, 61, 64}) {
        CAPTURE(dim);
        CAPTURE(pairs);
        CAPTURE(count);
        CHECK(c.wrong(count) == 0);
      }
    }
}

}  // namespace

TEST_CASE("spread queries: f32, f16, bf16") {
  check_spread<strata::f32_codec>();
  check_spread<strata::f16_codec>();
  check_spread<strata::bf16_codec>();
}
TEST_CASE("spread queries: int8, q8_0, int4") {
  check_spread<strata::int8_codec>();
  check_spread<strata::q8_0_codec>();
  check_spread<strata::int4_codec>();
}

TEST_CASE("spread queries: an infinity or a NaN among keys stays in the scores of its own key") {
  spread_case<strata::f32_codec> c(64, 6);
  auto const before = c.scores(64);
  float const bad[] = {std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::quiet_NaN()};
  for (std::int32_t const t : {5, 38})
    std::memcpy(c.keys.data() + (t * 64 + 3) * 4, &bad[t % 2], sizeof(float));
  auto const after = c.scores(64);
  for (std::int32_t i = 0; i < 6 * stream_keys; ++i) {
    auto const hit = i % stream_keys == 5 || i % stream_keys == 38;
    CHECK((hit ? !std::isfinite(after[size(i)]) : after[size(i)] == before[size(i)]));
  }
}
