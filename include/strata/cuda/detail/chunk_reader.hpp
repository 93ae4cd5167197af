// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Eight elements of a row of the cache as floats, of our own codecs: what a lane reads at a time
// where each lane has columns of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/codec.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/config.hpp>
#include <strata/cuda/codec.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {
namespace detail {

/// Whether all rows of a tensor begin on 16-byte boundaries.
template <class Blocks>
STRATA_HOST_DEVICE inline bool rows_aligned(Blocks const& blocks) noexcept {
  auto const bits =
      reinterpret_cast<std::uintptr_t>(blocks.data) |
      static_cast<std::uintptr_t>(blocks.stride.block | blocks.stride.token | blocks.stride.head);
  return bits % 16 == 0;
}

}  // namespace detail

template <class Element>
struct chunk_reader<plain_codec<Element>> {
  template <detail::thread_block Block>
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
  using element = typename Codec::element;
  static_assert(sizeof(element) == 1 && Codec::span % chunk_elements == 0);

  template <detail::thread_block Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    if (first >= n) {
      for (auto& x : out) x = 0;
      return;
    }
    auto const span = first / Codec::span;
    byte_chunk const bytes(Codec::span_data(row, span) + first % Codec::span, n - first);
    float const scale = Codec::span_scale(row, scales, span);
    for (std::int32_t i = 0; i < chunk_elements; ++i) {
      auto const x = strata::detail::bit_cast<element>(bytes[i]);
      out[i] = n > first + i ? static_cast<float>(x) * scale : 0.f;
    }
  }
};

template <>
struct chunk_reader<fp8_codec> {
  template <detail::thread_block Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    float const scale = *reinterpret_cast<float const*>(scales);
    byte_chunk const bytes(row + first, n - first);
    for (std::int32_t i = 0; i < chunk_elements; ++i)
      out[i] = to_float(float8_e4m3{bytes[i]}) * scale;
  }
};

/// A whole span has its first half in the lower bits of 16 bytes and its second above them, so eight
/// elements are half of each of eight bytes; of a shorter one they may be of both halves.
template <>
struct chunk_reader<int4_codec> {
  static constexpr std::int32_t span = int4_codec::span;

  template <detail::thread_block Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    if (first >= n) {
      for (auto& x : out) x = 0;
      return;
    }
    auto const begin = first / span * span;
    auto const half = strata::detail::ceil_divide(strata::detail::smaller(span, n - begin), 2);
    float16 kept;
    std::memcpy(&kept, scales + int4_codec::scale_bytes(begin), sizeof kept);
    float const scale = to_float(kept);
    auto const* const bytes = row + int4_codec::row_bytes(begin);
    auto const at = first - begin;
    if (half == span / 2) {
      byte_chunk const eight(bytes + at % half, chunk_elements);
      for (std::int32_t i = 0; i < chunk_elements; ++i)
        out[i] = first + i < n ? number(eight[i] >> (at < half ? 0 : 4)) * scale : 0.f;
    } else {
      for (std::int32_t i = 0; i < chunk_elements; ++i) {
        out[i] = 0;
        if (first + i >= n) continue;
        bool const low = at + i < half;
        auto const byte = static_cast<std::uint32_t>(bytes[low ? at + i : at + i - half]);
        out[i] = number(byte >> (low ? 0 : 4)) * scale;
      }
    }
  }

 private:
  /// Of the last four bits, with their sign.
  STRATA_DEVICE static float number(std::uint32_t bits) {
    return static_cast<float>((static_cast<std::int32_t>(bits & 15) ^ 8) - 8);
  }
};

template <class Element>
inline constexpr std::int32_t encoded_together<plain_codec<Element>> = chunk_elements;
template <span_codec Codec>
inline constexpr std::int32_t encoded_together<Codec> = Codec::span;
template <>
inline constexpr std::int32_t encoded_together<fp8_codec> = 2 * chunk_elements;
template <>
inline constexpr std::int32_t encoded_together<int4_codec> = int4_codec::span;

}  // namespace cuda

STRATA_NAMESPACE_END
