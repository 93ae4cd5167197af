// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Eight elements of a row of the cache as floats: what a lane reads at a time where each lane has
// columns of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/codec.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t chunk_elements = 8;

/// Whether all rows of a tensor begin on 16-byte boundaries.
template <class Blocks>
STRATA_HOST_DEVICE inline bool rows_aligned(Blocks const& blocks) noexcept {
  auto const bits =
      reinterpret_cast<std::uintptr_t>(blocks.data) |
      static_cast<std::uintptr_t>(blocks.stride.block | blocks.stride.token | blocks.stride.head);
  return bits % 16 == 0;
}

/// `load(block, row, scales, first, n, aligned, out)`: elements `first` on of a row of n, zeros
/// beyond; `first` is a multiple of 8. A codec of one's own is read on a device once there is a
/// specialisation for it.
template <class Codec>
struct chunk_reader;

template <class Element>
struct chunk_reader<plain_codec<Element>> {
  template <thread_block Block>
  STRATA_DEVICE static void load(Block const& block, std::byte const* row, std::byte const*,
                                 std::int32_t first, std::int32_t n, bool aligned,
                                 float (&out)[chunk_elements]) {
    constexpr auto size = static_cast<std::int32_t>(sizeof(Element));
    Element elements[chunk_elements] = {};
    if (aligned && n - first >= chunk_elements) {
      for (std::int32_t i = 0; i < size / 2; ++i) {
        auto const c = block.load(row + std::int64_t{first} * size + 16 * i);
        std::memcpy(reinterpret_cast<std::byte*>(elements) + 16 * i, &c, 16);
      }
    } else {
      for (std::int32_t i = 0; i < chunk_elements; ++i)
        if (n > first + i)
          std::memcpy(&elements[i], row + (std::int64_t{first} + i) * size, sizeof(Element));
    }
    for (std::int32_t i = 0; i < chunk_elements; ++i)
      out[i] = static_cast<float>(strata::detail::element_traits<Element>::decode(elements[i]));
  }
};

template <span_codec Codec>
struct chunk_reader<Codec> {
  static_assert(sizeof(typename Codec::element) == 1 && Codec::span % chunk_elements == 0);

  template <thread_block Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    if (first >= n) {
      for (auto& x : out) x = 0;
      return;
    }
    auto const span = first / Codec::span;
    auto const* const data = Codec::span_data(row, span) + first % Codec::span;
    float const scale = Codec::span_scale(row, scales, span);
    for (std::int32_t i = 0; i < chunk_elements; ++i) {
      typename Codec::element x = {};
      if (n > first + i) std::memcpy(&x, data + i, 1);
      out[i] = n > first + i ? static_cast<float>(x) * scale : 0.f;
    }
  }
};

template <>
struct chunk_reader<fp8_codec> {
  template <thread_block Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    float const scale = *reinterpret_cast<float const*>(scales);
    for (std::int32_t i = 0; i < chunk_elements; ++i) {
      float8_e4m3 x;
      if (n > first + i) std::memcpy(&x, row + first + i, sizeof x);
      out[i] = to_float(x) * scale;
    }
  }
};

/// A codec that device kernels read.
template <class Codec>
concept device_codec = kv_codec<Codec> && requires { sizeof(chunk_reader<Codec>); };

}  // namespace cuda::detail

STRATA_NAMESPACE_END
