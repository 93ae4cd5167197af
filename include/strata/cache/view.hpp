// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The one view of cached K/V that every kernel reads: contiguous, paged, one block per token,
// separate K and V tables, other rows per KV head, other depths per sequence. Plain data; owns
// nothing; the memory belongs to a storage or to an engine.
//
// Where element 0 of (sequence s, KV head h, token t) is:
//
//     row    = row_of ? row_of[row_per_head ? s * kv_heads + h : s] : s
//     block  = block_table ? block_table[row * blocks_per_row + t / block_size] : row
//     offset = block * stride.block + (t % block_size) * stride.token + h * stride.head    bytes
//
// A contiguous tensor is one block per row, as long as the row.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include <strata/cache/codec.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// Distances in bytes. Elements of one head are always adjacent.
struct block_strides {
  std::int64_t block = 0;
  std::int64_t token = 0;
  std::int64_t head = 0;
  friend constexpr bool operator==(block_strides const&, block_strides const&) noexcept = default;
};

/// Where a K or a V tensor lies. Byte is `std::byte` for who may write, `std::byte const` for
/// readers. Threads: plain data; what it points to is its owner's.
template <class Byte>
struct basic_tensor_blocks {
  Byte* data = nullptr;
  block_strides stride = {};
  Byte* scales = nullptr;  ///< of codecs that keep them apart; same blocks and rows, own strides
  block_strides scale_stride = {};

  std::int32_t const* block_table = nullptr;  ///< [rows, blocks_per_row], or null: row r is block r
  std::int64_t blocks_per_row = 0;
  std::int32_t block_size = 1;  ///< tokens per block

  std::int32_t const* row_of = nullptr;  ///< [num_seqs] or [num_seqs, kv_heads]; null: s is row s
  bool row_per_head = false;

  /// Tokens that a row has room for. Indices have 32 bits: more blocks than those count no further.
  STRATA_HOST_DEVICE constexpr std::int64_t capacity() const noexcept {
    if (block_table == nullptr) return block_size;
    auto const most = std::int64_t{detail::most_int32};
    return detail::smaller(detail::larger<std::int64_t>(blocks_per_row, 0), most) * block_size;
  }
  STRATA_HOST_DEVICE constexpr std::int64_t row(std::int32_t seq, std::int32_t head,
                                                std::int32_t kv_heads) const noexcept {
    if (row_of == nullptr) return seq;
    return row_of[row_per_head ? std::int64_t{seq} * kv_heads + head : seq];
  }
  STRATA_HOST_DEVICE constexpr std::int64_t block(std::int64_t row,
                                                  std::int32_t token) const noexcept {
    return block_table == nullptr ? row : block_table[row * blocks_per_row + token / block_size];
  }
  STRATA_HOST_DEVICE constexpr Byte* at(std::int64_t row, std::int32_t head,
                                        std::int32_t token) const noexcept {
    return data + offset(stride, row, head, token);
  }
  /// Null where the codec keeps no scales apart.
  STRATA_HOST_DEVICE constexpr Byte* scales_at(std::int64_t row, std::int32_t head,
                                               std::int32_t token) const noexcept {
    return scales == nullptr ? nullptr : scales + offset(scale_stride, row, head, token);
  }

  /// Whether two readers can be served by one call.
  friend constexpr bool operator==(basic_tensor_blocks const&,
                                   basic_tensor_blocks const&) noexcept = default;

  /// Who may write may also read; never the other way round (law 4).
  template <class Reader>
    requires(std::same_as<Reader, basic_tensor_blocks<std::byte const>> && !std::is_const_v<Byte>)
  constexpr operator Reader() const noexcept {
    return {data,           stride,     scales, scale_stride, block_table,
            blocks_per_row, block_size, row_of, row_per_head};
  }

 private:
  STRATA_HOST_DEVICE constexpr std::int64_t offset(block_strides const& s, std::int64_t row,
                                                   std::int32_t head,
                                                   std::int32_t token) const noexcept {
    return block(row, token) * s.block + token % block_size * s.token + head * s.head;
  }
};

using tensor_blocks = basic_tensor_blocks<std::byte const>;
using writable_blocks = basic_tensor_blocks<std::byte>;

/// How many tokens each sequence holds and at which positions they stand. Threads: plain data.
struct kv_rows {
  std::int32_t num_seqs = 0;
  std::int32_t const* lengths = nullptr;  ///< [num_seqs] or [num_seqs, kv_heads], or null: `length`
  std::int32_t length = 0;
  bool length_per_head = false;

  /// Position of token t of (s, h): positions[s * seq_stride + h * head_stride + t]. Null: position
  /// t. Ascending in t. A mask compares positions, never indices (law 8).
  std::int32_t const* positions = nullptr;
  std::int64_t position_seq_stride = 0;
  std::int64_t position_head_stride = 0;
  std::int32_t const* position_row_of = nullptr;  ///< [num_seqs]; null: sequence s is row s
};

/// Threads: plain data; calls with views of one cache may run at the same time.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
struct kv_view {
  using k_codec = KCodec;
  using v_codec = VCodec;

  tensor_blocks k;  ///< [num_seqs, length, kv_heads, k_dim], wherever it lies
  tensor_blocks v;  ///< [num_seqs, length, kv_heads, v_dim]
  kv_rows rows;
  std::int32_t kv_heads = 0;
  std::int32_t k_dim = 0;
  std::int32_t v_dim = 0;

  STRATA_HOST_DEVICE constexpr std::int32_t length(std::int32_t seq,
                                                   std::int32_t head) const noexcept {
    if (rows.lengths == nullptr) return rows.length;
    return rows.lengths[rows.length_per_head ? std::int64_t{seq} * kv_heads + head : seq];
  }

  /// Positions of a sequence's tokens, or null where token t stands at position t.
  STRATA_HOST_DEVICE constexpr std::int32_t const* positions(std::int32_t seq,
                                                             std::int32_t head) const noexcept {
    if (rows.positions == nullptr) return nullptr;
    std::int64_t const row = rows.position_row_of == nullptr ? seq : rows.position_row_of[seq];
    return rows.positions + row * rows.position_seq_stride + head * rows.position_head_stride;
  }

  /// Reads `k_dim` elements of K into `out`. Always inlined, as codecs are.
  template <class T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE void load_k(std::int32_t seq, std::int32_t head,
                                                        std::int32_t token, T* out) const noexcept {
    auto const row = k.row(seq, head, kv_heads);
    KCodec::decode(k.at(row, head, token), k.scales_at(row, head, token), k_dim, out);
  }

  /// Reads `v_dim` elements of V into `out`.
  template <class T>
  [[gnu::always_inline]] STRATA_HOST_DEVICE void load_v(std::int32_t seq, std::int32_t head,
                                                        std::int32_t token, T* out) const noexcept {
    auto const row = v.row(seq, head, kv_heads);
    VCodec::decode(v.at(row, head, token), v.scales_at(row, head, token), v_dim, out);
  }

  /// Refuses sizes, lengths and pointers that no kernel could use. Cheap: looks at the lengths, not
  /// at the data.
  [[gnu::always_inline]] constexpr status check() const noexcept {
    auto const s = check_shape();
    return s.ok() ? check_lengths() : s;
  }

  /// The same without a look at the lengths, which may be a device's.
  [[gnu::always_inline]] constexpr status check_shape() const noexcept {
    if (rows.num_seqs < 0) return {errc::bad_view_rows, no_layer, rows.num_seqs, 0};
    if (rows.length < 0) return {errc::bad_view_rows, no_layer, rows.length, 0};
    if (kv_heads < 1 || k_dim < 1 || v_dim < 1)
      return {errc::bad_view_heads, no_layer,
              kv_heads < 1 ? kv_heads
              : k_dim < 1  ? k_dim
                           : v_dim,
              1};
    if (k.block_size < 1 || v.block_size < 1)
      return {errc::bad_block_size, no_layer, k.block_size < 1 ? k.block_size : v.block_size, 1};
    bool const empty = rows.num_seqs == 0 || (rows.lengths == nullptr && rows.length == 0);
    if (!empty && (k.data == nullptr || v.data == nullptr))
      return null_pointer(k.data == nullptr ? tensor::k : tensor::v);
    bool const k_unscaled = KCodec::scale_bytes(k_dim) > 0 && k.scales == nullptr;
    bool const v_unscaled = VCodec::scale_bytes(v_dim) > 0 && v.scales == nullptr;
    if (!empty && (k_unscaled || v_unscaled))
      return null_pointer(k_unscaled ? tensor::k_scales : tensor::v_scales);
    return {};
  }

 private:
  /// Refuses a length that K or V has no room for.
  [[gnu::always_inline]] constexpr status check_lengths() const noexcept {
    auto const capacity = detail::smaller(k.capacity(), v.capacity());
    auto const count = rows.lengths == nullptr ? 1
                       : rows.length_per_head  ? std::int64_t{rows.num_seqs} * kv_heads
                                               : rows.num_seqs;
    for (std::int64_t i = 0; i < count; ++i) {
      auto const length = rows.lengths == nullptr ? rows.length : rows.lengths[i];
      if (length < 0 || length > capacity)
        return {errc::length_beyond_blocks, no_layer, length, capacity};
    }
    return {};
  }
};

namespace detail {

/// Distances of the scales of blocks: of rows that lie as `rows` says, or one for each KV head of a
/// block.
template <kv_codec Codec>
constexpr block_strides scale_strides(std::int32_t kv_heads, std::int32_t dim,
                                      block_strides const& rows) noexcept {
  auto const head = Codec::scale_bytes(dim);
  return head_scaled_codec<Codec> ? block_strides{head * kv_heads, 0, head} : rows;
}

}  // namespace detail

/// Blocks as [block, token, head, dim] (NHD: vLLM's order) of one codec. Scales that the codec
/// keeps apart lie in the same order; of a head-scaled codec they are [block, head].
template <kv_codec Codec, class Byte>
constexpr basic_tensor_blocks<Byte> nhd_blocks(
    Byte* data, std::int32_t block_size, std::int32_t kv_heads, std::int32_t dim,
    std::type_identity_t<Byte>* scales = nullptr) noexcept {
  auto const strides = [&](std::int64_t head) {
    return block_strides{head * kv_heads * block_size, head * kv_heads, head};
  };
  basic_tensor_blocks<Byte> blocks;
  blocks.data = data;
  blocks.stride = strides(Codec::row_bytes(dim));
  blocks.scales = scales;
  blocks.scale_stride =
      detail::scale_strides<Codec>(kv_heads, dim, strides(Codec::scale_bytes(dim)));
  blocks.block_size = block_size;
  return blocks;
}

/// Blocks as [block, head, token, dim] (HND: TensorRT-LLM's order) of one codec.
template <kv_codec Codec, class Byte>
constexpr basic_tensor_blocks<Byte> hnd_blocks(
    Byte* data, std::int32_t block_size, std::int32_t kv_heads, std::int32_t dim,
    std::type_identity_t<Byte>* scales = nullptr) noexcept {
  auto const strides = [&](std::int64_t token) {
    return block_strides{token * block_size * kv_heads, token, token * block_size};
  };
  basic_tensor_blocks<Byte> blocks;
  blocks.data = data;
  blocks.stride = strides(Codec::row_bytes(dim));
  blocks.scales = scales;
  blocks.scale_stride =
      detail::scale_strides<Codec>(kv_heads, dim, strides(Codec::scale_bytes(dim)));
  blocks.block_size = block_size;
  return blocks;
}

/// The view of two plain tensors, as a trainer holds them.
/// k: [num_seqs, length, kv_heads, k_dim]; v: [num_seqs, length, kv_heads, v_dim].
template <class Element>
constexpr kv_view<plain_codec<Element>> contiguous_view(Element const* k, Element const* v,
                                                        std::int32_t num_seqs, std::int32_t length,
                                                        std::int32_t kv_heads, std::int32_t k_dim,
                                                        std::int32_t v_dim) noexcept {
  using codec = plain_codec<Element>;
  kv_view<codec> view;
  auto const bytes = [](Element const* p) { return reinterpret_cast<std::byte const*>(p); };
  view.k = nhd_blocks<codec>(bytes(k), length > 0 ? length : 1, kv_heads, k_dim);
  view.v = nhd_blocks<codec>(bytes(v), length > 0 ? length : 1, kv_heads, v_dim);
  view.rows.num_seqs = num_seqs;
  view.rows.length = length;
  view.kv_heads = kv_heads;
  view.k_dim = k_dim;
  view.v_dim = v_dim;
  return view;
}

STRATA_NAMESPACE_END
