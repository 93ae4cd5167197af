// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Codecs as users would write them for a device, by what strata/cuda/codec.hpp offers: one whose
// rows are encoded as a whole, and one whose elements stand alone.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cuda/codec.hpp>

#include "row_scaled_codec.hpp"

namespace support {

/// Fixed point: 16 bits, in steps of 2^-12, between -8 and 8; the least number stands for NaN.
struct fixed_codec {
  static constexpr bool exact = false;

  STRATA_HOST_DEVICE static constexpr std::int64_t row_bytes(std::int32_t n) noexcept {
    return 2 * std::int64_t{n};
  }
  STRATA_HOST_DEVICE static constexpr std::int64_t scale_bytes(std::int32_t) noexcept { return 0; }

  template <std::floating_point T>
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte*) noexcept {
    for (std::int32_t i = 0; i < n; ++i) {
      auto const steps = std::round(static_cast<float>(in[i]) * 0x1p12f);
      auto const bounded = std::fmin(std::fmax(steps, -32767.f), 32767.f);
      auto const x = static_cast<std::int16_t>(steps != steps ? -32768.f : bounded);
      std::memcpy(row + 2 * std::int64_t{i}, &x, sizeof x);
    }
  }

  template <std::floating_point T>
  STRATA_HOST_DEVICE static void decode(std::byte const* row, std::byte const*, std::int32_t n,
                                        T* out) noexcept {
    for (std::int32_t i = 0; i < n; ++i) {
      std::int16_t x;
      std::memcpy(&x, row + 2 * std::int64_t{i}, sizeof x);
      out[i] = x == -32768 ? static_cast<T>(NAN) : static_cast<T>(static_cast<float>(x) * 0x1p-12f);
    }
  }
};
static_assert(strata::kv_codec<fixed_codec>);

}  // namespace support

template <>
struct strata::cuda::chunk_reader<support::row_scaled_codec> {
  template <class Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    float scale;
    std::memcpy(&scale, scales, sizeof scale);
    byte_chunk const bytes(row + first, n - first);
    for (std::int32_t i = 0; i < chunk_elements; ++i)
      out[i] = first + i < n ? static_cast<float>(static_cast<std::int8_t>(bytes[i])) * scale : 0;
  }
};

template <>
struct strata::cuda::chunk_reader<support::fixed_codec> {
  template <class Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    for (std::int32_t i = 0; i < chunk_elements; ++i) {
      out[i] = 0;
      if (first + i < n) support::fixed_codec::decode(row + 2 * (first + i), scales, 1, out + i);
    }
  }
};
template <>
inline constexpr std::int32_t strata::cuda::encoded_together<support::fixed_codec> = 8;
