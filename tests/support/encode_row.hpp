// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of any codec without a step: what a step does where a KV head has one scale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/codec.hpp>

namespace support {

/// `scale`: that of the row's KV head, of a codec that has one.
template <class Codec, class T>
void encode_row(T const* in, std::int32_t n, std::byte* row, std::byte* scales, float scale = 1) {
  if constexpr (strata::head_scaled_codec<Codec>) std::memcpy(scales, &scale, sizeof(scale));
  Codec::encode(in, n, row, scales);
}

}  // namespace support
