// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A codec as a user would write one: int8, and one scale of float per row, kept apart. It takes
// rows of float and double only. A row that holds NaN is read as NaN.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/int8_codec.hpp>
#include <strata/config.hpp>

namespace support {

struct row_scaled_codec {
  static constexpr bool exact = false;

  STRATA_HOST_DEVICE static std::int64_t row_bytes(std::int32_t n) noexcept { return n; }
  STRATA_HOST_DEVICE static std::int64_t scale_bytes(std::int32_t) noexcept {
    return sizeof(float);
  }

  template <std::floating_point T>
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte* scales) noexcept {
    T largest = 0;
    for (std::int32_t i = 0; i < n; ++i)
      if (auto const size = std::abs(in[i]); size > largest || size != size) largest = size;
    auto const scale = static_cast<float>(largest / 127);  // NaN: the row is read as that
    std::memcpy(scales, &scale, sizeof(scale));
    for (std::int32_t i = 0; i < n; ++i) {
      // The scale was rounded, perhaps down: without bounds 127.6 could become 128.
      auto const steps = scale > 0 ? std::round(in[i] / static_cast<T>(scale)) : T{0};
      auto const x = static_cast<std::int8_t>(std::fmin(std::fmax(steps, T{-127}), T{127}));
      std::memcpy(row + i, &x, 1);
    }
  }

  template <std::floating_point T>
  STRATA_HOST_DEVICE static void decode(std::byte const* row, std::byte const* scales,
                                        std::int32_t n, T* out) noexcept {
    float scale;
    std::memcpy(&scale, scales, sizeof(scale));
    for (std::int32_t i = 0; i < n; ++i) {
      std::int8_t x;
      std::memcpy(&x, row + i, 1);
      out[i] = static_cast<T>(static_cast<float>(x) * scale);
    }
  }
};
static_assert(strata::kv_codec<row_scaled_codec> && !strata::span_codec<row_scaled_codec>);

}  // namespace support
