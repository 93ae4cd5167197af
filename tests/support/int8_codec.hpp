// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A codec that keeps its scales apart, as a user would write one: int8, and one scale per row.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/codec.hpp>

namespace support {

/// Scale: float or strata::float16.
template <class Scale>
struct int8_codec {
  static constexpr bool exact = false;

  static std::int64_t row_bytes(std::int32_t n) noexcept { return n; }
  static std::int64_t scale_bytes(std::int32_t) noexcept { return sizeof(Scale); }

  template <std::floating_point T>
  static void encode(T const* in, std::int32_t n, std::byte* row, std::byte* scales) noexcept {
    T largest = 0;
    for (std::int32_t i = 0; i < n; ++i) largest = std::fmax(largest, std::abs(in[i]));
    largest /= 127;
    strata::plain_codec<Scale>::encode(&largest, 1, scales, nullptr);
    float scale;
    strata::plain_codec<Scale>::decode(scales, nullptr, 1, &scale);
    for (std::int32_t i = 0; i < n; ++i) {
      // The scale was rounded, perhaps down: without bounds 127.6 could become 128.
      auto const steps = scale > 0 ? std::round(in[i] / static_cast<T>(scale)) : T{0};
      auto const x = static_cast<std::int8_t>(std::fmin(std::fmax(steps, T{-127}), T{127}));
      std::memcpy(row + i, &x, 1);
    }
  }

  template <std::floating_point T>
  static void decode(std::byte const* row, std::byte const* scales, std::int32_t n,
                     T* out) noexcept {
    float scale;
    strata::plain_codec<Scale>::decode(scales, nullptr, 1, &scale);
    for (std::int32_t i = 0; i < n; ++i) {
      std::int8_t x;
      std::memcpy(&x, row + i, 1);
      out[i] = static_cast<T>(static_cast<float>(x) * scale);
    }
  }
};
static_assert(strata::kv_codec<int8_codec<float>>);
static_assert(strata::kv_codec<int8_codec<strata::float16>>);

}  // namespace support
