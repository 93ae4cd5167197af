// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a codec of one's own needs for device kernels to read and append its rows: storages, views
// and runs take it as they do on the host.
//
// 1. Its functions are STRATA_HOST_DEVICE, and call nothing that is not.
// 2. A reader gives eight elements of a row as floats:
//
//     template <>
//     struct strata::cuda::chunk_reader<my_codec> {
//       template <class Block>
//       STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
//                                      std::int32_t first, std::int32_t n, bool aligned,
//                                      float (&out)[strata::cuda::chunk_elements]);
//     };
//
// 3. Where less than a whole row can be encoded at a time, `encoded_together` says so.
// 4. What is NaN stays NaN: `device_codec` says why.
//
// Attention then takes the plain path: kernels of matrix products know our own codecs alone.
// examples/cuda/custom_codec.cu does all of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/codec.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

/// Elements of a row that a lane reads at a time.
inline constexpr std::int32_t chunk_elements = 8;

/// Reads rows of a codec: `load(block, row, scales, first, n, aligned, out)` gives elements `first`
/// on of a row of n, and zeros beyond them, without a look at what lies there. `first` is a
/// multiple of 8, and may lie beyond the row. `scales` is null where the codec keeps none apart;
/// `aligned`: all rows of the tensor begin on 16-byte boundaries. Every lane of a warp has a
/// `first` of its own: no lane may wait for another.
template <class Codec>
struct chunk_reader;

/// A codec that device kernels read. Of a row of NaN, encode must make what decode and the reader
/// give back as NaN, every element: a device cannot refuse a key whose position lies beyond the
/// RoPE table, and stores NaN in its place. No type can show this: bounds by fmin and fmax, and
/// casts to integers, turn NaN into a number. A row of which only some elements are NaN may lose
/// others, as those that share a scale do.
template <class Codec>
concept device_codec = kv_codec<Codec> && requires { sizeof(chunk_reader<Codec>); };

/// Elements that a codec encodes together, from multiples of them on, each such part of a row
/// beginning at `row + row_bytes(first)` with its scales at `scales + scale_bytes(first)`, both of
/// which are then constexpr: a lane encodes each part. 0: only whole rows, which are one lane's
/// work.
template <class Codec>
inline constexpr std::int32_t encoded_together = 0;

/// Eight bytes of a row, for readers: read at once where they are aligned to 8, two at a time where
/// they are to 2. Those from number `count` on are zeros, and not read.
class byte_chunk {
 public:
  STRATA_DEVICE byte_chunk(std::byte const* from, std::int32_t count) {
    auto const address = reinterpret_cast<std::uintptr_t>(from);
    if (count >= chunk_elements && address % 8 == 0) {
      std::memcpy(words_, __builtin_assume_aligned(from, 8), sizeof words_);
    } else if (count >= chunk_elements && address % 2 == 0) {
      for (std::int32_t i = 0; i < chunk_elements; i += 2) {
        std::uint16_t two;
        std::memcpy(&two, __builtin_assume_aligned(from + i, 2), sizeof two);
        words_[i / 4] |= std::uint32_t{two} << i % 4 * 8;
      }
    } else {
      for (std::int32_t i = 0; i < chunk_elements; ++i)
        if (i < count) words_[i / 4] |= static_cast<std::uint32_t>(from[i]) << i % 4 * 8;
    }
  }

  STRATA_DEVICE std::uint8_t operator[](std::int32_t i) const {
    return static_cast<std::uint8_t>(words_[i / 4] >> i % 4 * 8);
  }

 private:
  std::uint32_t words_[2] = {};
};

}  // namespace cuda

STRATA_NAMESPACE_END
