// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows as device kernels read them: eight elements at a time are what the codec's own decode gives,
// wherever a row lies; and attention over codecs of one's own, the launches run on the host.
// (append_test.cpp appends with them.)
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cuda/detail/chunk_reader.hpp>

#include "support/device_checks.hpp"
#include "support/exact_numbers.hpp"
#include "support/own_codecs.hpp"
#include "support/simt_attention.hpp"

namespace {

using strata::cuda::chunk_elements;
using support::as_size;

static_assert(strata::cuda::device_codec<support::row_scaled_codec>);
static_assert(!strata::cuda::device_codec<int>);

/// Reads a row of n elements that lies `offset` bytes behind a 64-byte boundary, and what follows:
/// random numbers, or NaN.
template <class Codec>
void check_row(std::int32_t n, std::int32_t offset, bool numbers = true) {
  auto const bytes = Codec::row_bytes(n);
  std::vector<std::byte> memory(as_size(64 + offset + bytes + 64), std::byte{0xFF});
  auto const base = reinterpret_cast<std::uintptr_t>(memory.data());
  auto* const row = memory.data() + (64 - base % 64) % 64 + offset;
  std::vector<float> scales(as_size(2 + Codec::scale_bytes(n) / 4), 0.37f);
  auto* const scales_at = reinterpret_cast<std::byte*>(scales.data());
  auto x = support::random_values<float>(n, static_cast<std::uint64_t>(n * 64 + offset + 1));
  if (!numbers) std::fill(x.begin(), x.end(), std::nanf(""));
  Codec::encode(x.data(), n, row, scales_at);
  std::vector<float> decoded(as_size(n + 3 * chunk_elements));
  Codec::decode(row, scales_at, n, decoded.data());

  std::vector<float> read(decoded.size(), -1);
  simt::launch({1, 32, 0}, [&](simt::block const& block) {
    for (auto first = block.thread() * chunk_elements;
         first + chunk_elements <= static_cast<std::int32_t>(read.size());
         first += 32 * chunk_elements) {
      float out[chunk_elements];
      strata::cuda::chunk_reader<Codec>::load(block, row, scales_at, first, n, offset % 16 == 0,
                                              out);
      std::memcpy(read.data() + first, out, sizeof out);
    }
  });
  auto const whole = read.size() / chunk_elements * chunk_elements;
  if (numbers) {
    CHECK(std::memcmp(read.data(), decoded.data(), whole * sizeof(float)) == 0);
    return;
  }
  for (std::size_t i = 0; i < whole; ++i) {
    REQUIRE(std::isnan(decoded[i]) == (i < x.size()));
    REQUIRE(std::isnan(read[i]) == (i < x.size()));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("cuda codec: eight elements at a time are the row's", Codec, strata::f32_codec,
                   strata::f16_codec, strata::bf16_codec, strata::int8_codec, strata::q8_0_codec,
                   strata::fp8_codec, strata::int4_codec, support::row_scaled_codec,
                   support::fixed_codec) {
  for (auto const n : {1, 7, 8, 9, 32, 33, 64, 80, 100, 128, 300})
    for (auto const offset : {0, 1, 2, 4, 6, 8, 16, 34}) {
      CAPTURE(n);
      CAPTURE(offset);
      check_row<Codec>(n, offset);
      check_row<Codec>(n, offset, false);
    }
}

TEST_CASE("cuda codec: attention over codecs of one's own") {
  auto const vary = [](auto& kernel, std::int32_t i) {
    kernel.launcher.order = simt::order_of(i);
    kernel.launcher.copies = simt::arrival_of(i);
    kernel.split_keys = i % 2 * 64;
  };
  support::check_forward_grid<float, support::row_scaled_codec, support::fixed_codec>(
      support::simt_attention<64>(), 0, 11, vary);
  support::check_forward_grid<strata::bfloat16, support::fixed_codec, strata::int8_codec>(
      support::simt_attention<64>(), 0, 12, vary);
}
