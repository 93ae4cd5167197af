// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// New rows of K and V on their way into the cache: read, turned by RoPE, encoded and written in one
// pass, all tokens at once. A warp takes a head of a row; its lanes encode what is encoded
// together, 8 elements or a span.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/cache/codec.hpp>
#include <strata/cache/rope.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/chunk_reader.hpp>
#include <strata/cuda/detail/rotation.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/math.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

using strata::detail::ceil_divide;
using strata::detail::larger;
using strata::detail::smaller;

/// Rows of K, or of V.
template <class T>
struct append_side {
  T const* heads = nullptr;  ///< [num_rows, kv_heads, dim], rows `row_stride` apart
  append_rows to;
  std::int32_t first_row = 0;  ///< of the layer's input rows
  std::int32_t num_rows = 0;
  /// In elements, at least kv_heads * dim; 0: just that. Where one product makes Q, K and V, it is
  /// the width of all three.
  std::int64_t row_stride = 0;
};

template <class T, class KCodec, class VCodec>
struct append_args {
  using k_codec = KCodec;
  using v_codec = VCodec;
  append_side<T> k, v;
  rotary<float> rope;  ///< of K; no table: as it is
};

inline constexpr std::int32_t append_threads = 128;
inline constexpr std::int32_t append_warps = append_threads / warp_size;

/// Element i of a head that lies in shared memory, turned. Off from `rotary::rotate` by what a
/// fused multiply-add rounds less.
STRATA_DEVICE inline float rotated(rotary<float> const& rope, float const* head, std::int32_t i,
                                   std::int32_t position) {
  if (i >= rope.dims) return head[i];
  auto const half = rope.dims / 2;
  bool const second = rope.interleaved ? i % 2 == 1 : i >= half;
  auto const pair = rope.interleaved ? i / 2 : i % half;
  auto const other = rope.interleaved ? i ^ 1 : second ? i - half : i + half;
  auto const at = position * rope.stride + pair;
  float const sine = second ? rope.sin[at] : -rope.sin[at];
  return head[i] * rope.cos[at] + head[other] * sine;
}

/// Reads a head into shared memory: 16 bytes to a lane where they are aligned.
template <class T, thread_block Block>
STRATA_DEVICE inline void load_head(Block const& block, T const* from, std::int32_t dim,
                                    float* head) {
  constexpr auto together = static_cast<std::int32_t>(16 / sizeof(T));
  bool const aligned = reinterpret_cast<std::uintptr_t>(from) % 16 == 0 && dim % together == 0;
  for (auto i = lane_of(block) * together; aligned && i < dim; i += warp_size * together) {
    auto const c = block.load(reinterpret_cast<std::byte const*>(from + i));
    T elements[together];
    std::memcpy(static_cast<void*>(elements), &c, sizeof c);
    for (std::int32_t j = 0; j < together; ++j) head[i + j] = strata::detail::widen(elements[j]);
  }
  for (auto i = lane_of(block); !aligned && i < dim; i += warp_size)
    head[i] = strata::detail::widen(from[i]);
  block.sync_warp();
}

/// Encodes `count` elements from `first` on and writes them, at once where the codec keeps no
/// scales and the place is aligned.
template <class Codec, std::int32_t Together>
STRATA_DEVICE inline void store_part(float const (&x)[Together], std::int32_t first,
                                     std::int32_t count, std::byte* row, std::byte* scales) {
  auto* const to = row + Codec::row_bytes(first);
  bool const own = !head_scaled_codec<Codec> && scales != nullptr;
  auto* const scales_to = own ? scales + Codec::scale_bytes(first) : scales;
  constexpr auto bytes = static_cast<std::int32_t>(Codec::row_bytes(Together));
  constexpr bool unscaled = Codec::scale_bytes(Together) == 0 || head_scaled_codec<Codec>;
  if constexpr (bytes % 16 == 0 && unscaled) {
    if (count == Together && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
      chunk encoded[bytes / 16];
      Codec::encode(x, Together, reinterpret_cast<std::byte*>(encoded), scales);
      for (std::int32_t i = 0; i < bytes / 16; ++i) reinterpret_cast<chunk*>(to)[i] = encoded[i];
      return;
    }
  }
  Codec::encode(x, count, to, scales_to);
}

/// Encodes a head in parts where the codec can, by the lanes of a warp.
template <class Codec, thread_block Block, class Element>
STRATA_DEVICE inline void store_parts(Block const& block, std::int32_t dim, Element const& element,
                                      std::byte* row, std::byte* scales) {
  constexpr auto together = encoded_together<Codec>;
  for (auto first = lane_of(block) * together; first < dim; first += warp_size * together) {
    float x[together] = {};
    auto const count = smaller(together, dim - first);
    for (std::int32_t i = 0; i < count; ++i) x[i] = element(first + i);
    store_part<Codec>(x, first, count, row, scales);
  }
}

/// One head of one row, a warp's work.
template <class Codec, thread_block Block>
STRATA_DEVICE inline void store_head(Block const& block, float* head, std::int32_t dim,
                                     rotary<float> const& rope, std::int32_t position,
                                     std::byte* row, std::byte* scales) {
  bool const turns = rope.cos != nullptr;
  // What lies beyond the table must not look like a key.
  bool const lost = turns && (position < 0 || position >= rope.positions);
  auto const element = [&](std::int32_t i) {
    return lost    ? strata::detail::bit_cast<float>(0x7FC00000)
           : turns ? rotated(rope, head, i, position)
                   : head[i];
  };
  using kept = typename stored_as<Codec>::codec;
  constexpr bool rotates = stored_as<Codec>::rotated;
  if constexpr (encoded_together<kept> > 0 && !rotates) {
    store_parts<kept>(block, dim, element, row, scales);
  } else {
    float turned[rotary<float>::max_dim / warp_size];  // of this lane
    for (auto i = lane_of(block), n = 0; i < dim; i += warp_size) turned[n++] = element(i);
    block.sync_warp();
    for (auto i = lane_of(block), n = 0; i < dim; i += warp_size) head[i] = turned[n++];
    block.sync_warp();
    if constexpr (rotates)
      rotate_together(head, dim, lane_of(block), warp_size, [&] { block.sync_warp(); });
    if constexpr (encoded_together<kept> > 0)
      store_parts<kept>(block, dim, [&](std::int32_t i) { return head[i]; }, row, scales);
    else if (lane_of(block) == 0)
      kept::encode(head, dim, row, scales);
  }
}

/// Head `item` of all heads of all rows of a side.
template <class Codec, class T, thread_block Block>
STRATA_DEVICE inline void append_head(Block const& block, append_side<T> const& side,
                                      rotary<float> const& rope, std::int64_t item, float* head) {
  auto const& to = side.to;
  auto const i = static_cast<std::int32_t>(item / to.kv_heads);
  auto const h = static_cast<std::int32_t>(item % to.kv_heads);
  auto const batch_row = to.rows[side.first_row + i];
  auto const seq = to.sequence[batch_row], token = to.token[batch_row];
  auto const row = to.blocks.row(seq, h, to.kv_heads);
  if (row < 0) return;  // its plan does not store this layer
  auto const stride = side.row_stride == 0 ? std::int64_t{to.kv_heads} * to.dim : side.row_stride;
  load_head(block, side.heads + i * stride + std::int64_t{h} * to.dim, to.dim, head);
  auto const position = to.positions == nullptr ? token : to.positions[side.first_row + i];
  auto* const place = to.blocks.at(row, h, token);
  auto* const scales = to.blocks.scales_at(row, h, token);
  if constexpr (head_scaled_codec<Codec>) {
    // All rows of a block and head write the same float; each is encoded by its own copy of it.
    float scale = to.head_scales == nullptr ? 1.f : to.head_scales[h];
    if (lane_of(block) == 0) *reinterpret_cast<float*>(scales) = scale;
    store_head<Codec>(block, head, to.dim, rope, position, place,
                      reinterpret_cast<std::byte*>(&scale));
  } else {
    store_head<Codec>(block, head, to.dim, rope, position, place, scales);
  }
  block.sync_warp();  // before the next head overwrites this one
}

/// Shared memory: a head of floats for each warp.
template <class T, class KCodec, class VCodec, thread_block Block>
STRATA_DEVICE inline void append_body(Block const& block,
                                      append_args<T, KCodec, VCodec> const& args) {
  auto const dim = larger(args.k.to.dim, args.v.to.dim);
  auto* const head = reinterpret_cast<float*>(block.memory()) + warp_of(block) * dim;
  auto const k_heads = std::int64_t{args.k.num_rows} * args.k.to.kv_heads;
  auto const heads = k_heads + std::int64_t{args.v.num_rows} * args.v.to.kv_heads;
  auto const step = std::int64_t{block.count()} * append_warps;
  for (auto i = std::int64_t{block.index()} * append_warps + warp_of(block); i < heads; i += step) {
    if (i < k_heads)
      append_head<KCodec>(block, args.k, args.rope, i, head);
    else
      append_head<VCodec>(block, args.v, rotary<float>{}, i - k_heads, head);
  }
}

/// Nothing is kept in registers across heads: as many blocks as fit.
struct append_kernel {
  static constexpr std::int32_t threads = append_threads, blocks_per_multiprocessor = 8;
  template <thread_block Block, class T, class KCodec, class VCodec>
  STRATA_DEVICE static void run(Block const& block, append_args<T, KCodec, VCodec> const& args) {
    append_body(block, args);
  }
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
