// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Keeps some tokens of every sequence of a batch in a layer's K or V, wherever its blocks lie, and
// the same of positions: what eviction leaves. Bytes are moved, never decoded.
#pragma once

#include <cstddef>
#include <cstdint>

#include <thrust/find.h>
#include <thrust/iterator/counting_iterator.h>

#include <strata/bulk/detail/copy.hpp>
#include <strata/bulk/detail/policy.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk {

/// The tokens that stay of sequence s, KV head h: tokens[s * seq_stride + h * head_stride + j], j <
/// count; ascending, negative ones behind them stand for none. What `top_k` writes, for instance.
struct kept_tokens {
  std::int32_t const* tokens = nullptr;
  std::int32_t count = 0;
  std::int64_t seq_stride = 0;
  std::int64_t head_stride = 0;  ///< 0: all heads keep the same

  STRATA_HOST_DEVICE constexpr std::int32_t at(std::int64_t seq, std::int64_t head,
                                               std::int64_t j) const noexcept {
    return tokens[seq * seq_stride + head * head_stride + j];
  }
};

/// How much there is of each token: the bytes of a head, and of its scales where they lie apart.
struct token_shape {
  std::int32_t num_seqs = 0;
  std::int32_t kv_heads = 1;
  std::int64_t row_bytes = 0;
  std::int64_t scale_bytes = 0;

  template <kv_codec Codec>
  static constexpr token_shape of(std::int32_t num_seqs, std::int32_t kv_heads,
                                  std::int32_t dim) noexcept {
    return {num_seqs, kv_heads, Codec::row_bytes(dim), Codec::scale_bytes(dim)};
  }
};

/// Positions as the blocks of a tensor whose heads have 4 bytes, to be compacted beside K and V.
/// Strides are those of `kv_rows`, in positions. No `row_of` yet: sequence s is row s.
inline writable_blocks position_blocks(std::int32_t* positions, std::int32_t capacity,
                                       std::int64_t seq_stride,
                                       std::int64_t head_stride = 0) noexcept {
  writable_blocks blocks;
  blocks.data = reinterpret_cast<std::byte*>(positions);
  blocks.stride = {seq_stride * 4, 4, head_stride * 4};
  blocks.block_size = capacity;
  return blocks;
}

namespace detail {

/// Unit i is entry `first + i % count` of the list of a sequence and head: the token that it names,
/// or, packed, the one that this becomes. Null where there is none, or no row or block for it.
template <class Byte>
struct token_place {
  basic_tensor_blocks<Byte> blocks;
  std::int64_t capacity;
  kept_tokens kept;
  std::int32_t kv_heads;
  std::int64_t first;
  std::int64_t count;
  bool packed;

  STRATA_HOST_DEVICE Byte* operator()(std::int64_t unit) const noexcept {
    auto const j = first + unit % count;
    auto const head = static_cast<std::int32_t>(unit / count % kv_heads);
    auto const seq = static_cast<std::int32_t>(unit / count / kv_heads);
    auto const named = kept.at(seq, head, j);
    auto const token = packed ? static_cast<std::int32_t>(j) : named;
    if (named < 0 || token >= capacity) return nullptr;
    auto const row = blocks.row(seq, head, kv_heads);
    if (row < 0 || blocks.block(row, token) < 0) return nullptr;
    return blocks.at(row, head, token);
  }
};

/// Whether entry i of all lists cannot stand where it does.
struct misplaced_token {
  kept_tokens kept;
  std::int32_t kv_heads;
  std::int64_t capacity;

  STRATA_HOST_DEVICE std::int32_t token(std::int64_t i) const noexcept {
    return kept.at(i / kept.count / kv_heads, i / kept.count % kv_heads, i % kept.count);
  }
  STRATA_HOST_DEVICE bool operator()(std::int64_t i) const noexcept {
    auto const now = token(i);
    return now >= capacity || (now >= 0 && i % kept.count > 0 && now <= token(i - 1)) ||
           (now >= 0 && i % kept.count > 0 && token(i - 1) < 0);
  }
};

/// The same tensor's scales, as a tensor of their own. By reference: g++ 12 forgets that what the
/// pointers of a parameter by value point to may be written by who takes what is returned.
template <class Byte>
constexpr basic_tensor_blocks<Byte> scales_of(basic_tensor_blocks<Byte> const& blocks) noexcept {
  auto out = blocks;
  out.data = blocks.scales;
  out.stride = blocks.scale_stride;
  return out;
}

template <class Byte>
std::uintptr_t alignment_of(basic_tensor_blocks<Byte> const& blocks) noexcept {
  auto const& s = blocks.stride;
  return reinterpret_cast<std::uintptr_t>(blocks.data) |
         static_cast<std::uintptr_t>(s.block | s.token | s.head);
}

/// Throws. One tensor: heads of `width` bytes.
template <class Policy>
void move_tokens(Policy const& policy, tensor_blocks const& from, kept_tokens const& kept,
                 writable_blocks const& to, std::int64_t lists, std::int32_t kv_heads,
                 std::int64_t width, bool in_place) {
  if (lists == 0 || kept.count == 0 || width == 0) return;
  using source = token_place<std::byte const>;
  using target = token_place<std::byte>;
  std::int64_t const count = kept.count;
  auto const alignment = alignment_of(from) | alignment_of(to) | static_cast<std::uintptr_t>(width);
  if (!in_place) {
    copy_units(policy, lists * count, width, alignment,
               source{from, from.capacity(), kept, kv_heads, 0, count, false},
               target{to, to.capacity(), kept, kv_heads, 0, count, true});
    return;
  }
  auto const step = rows_at_once(count, lists * width);  // of every list
  temporary_bytes<Policy> const held(policy, lists * step * width);
  for (std::int64_t first = 0; first < count; first += step) {
    auto const some = strata::detail::smaller(step, count - first);
    copy_units(policy, lists * some, width, alignment,
               source{from, from.capacity(), kept, kv_heads, first, some, false},
               row_place<std::byte>{held.data(), width});
    copy_units(policy, lists * some, width, alignment,
               row_place<std::byte const>{held.data(), width},
               target{to, to.capacity(), kept, kv_heads, first, some, true});
  }
}

inline status check_blocks(tensor_blocks const& blocks, token_shape const& shape,
                           tensor which) noexcept {
  if (blocks.block_size < 1) return {errc::bad_block_size, no_layer, blocks.block_size, 1};
  if (shape.num_seqs == 0) return {};
  bool const lacks_data = shape.row_bytes > 0 && blocks.data == nullptr;
  bool const lacks_scales = shape.scale_bytes > 0 && blocks.scales == nullptr;
  if (lacks_data || lacks_scales) return null_pointer(which);
  return {};
}

inline status check_kept(kept_tokens const& kept, token_shape const& shape) noexcept {
  if (shape.num_seqs < 0) return {errc::value_too_small, no_layer, shape.num_seqs, 0};
  if (shape.kv_heads < 1) return {errc::value_too_small, no_layer, shape.kv_heads, 1};
  if (shape.row_bytes < 0) return {errc::value_too_small, no_layer, shape.row_bytes, 0};
  if (shape.scale_bytes < 0) return {errc::value_too_small, no_layer, shape.scale_bytes, 0};
  if (kept.count < 0) return {errc::value_too_small, no_layer, kept.count, 0};
  if (shape.num_seqs > 0 && kept.count > 0 && kept.tokens == nullptr)
    return null_pointer(tensor::row_list);
  auto const lists = std::int64_t{shape.num_seqs} * shape.kv_heads;
  auto const units = checked_multiply(lists, kept.count);
  if (!units.ok()) return units.state();
  if (auto const bytes = checked_multiply(*units, shape.row_bytes); !bytes.ok())
    return bytes.state();
  return checked_multiply(*units, shape.scale_bytes).state();
}

/// Throws. Of a system of the host: what the lists say is looked at.
template <class Policy>
status check_tokens(Policy const& policy, kept_tokens const& kept, token_shape const& shape,
                    std::int64_t capacity) {
  auto const count = std::int64_t{shape.num_seqs} * shape.kv_heads * kept.count;
  misplaced_token const misplaced{kept, shape.kv_heads, capacity};
  auto const first = ::thrust::counting_iterator<std::int64_t>(0);
  auto const at = ::thrust::find_if(policy, first, first + count, misplaced) - first;
  if (at == count) return {};
  auto const token = misplaced.token(at);
  if (token >= capacity) return {errc::length_beyond_blocks, no_layer, token, capacity};
  return {errc::list_not_ascending, no_layer, token, misplaced.token(at - 1)};
}

template <class Policy>
status compact_blocks(Policy const& policy, tensor_blocks const& from, kept_tokens const& kept,
                      writable_blocks const& to, token_shape const& shape, bool in_place) noexcept {
  if (auto const s = check_kept(kept, shape); !s.ok()) return s;
  if (auto const s = check_blocks(from, shape, tensor::rows_read); !s.ok()) return s;
  if (auto const s = check_blocks(to, shape, tensor::rows_written); !s.ok()) return s;
  auto const lists = std::int64_t{shape.num_seqs} * shape.kv_heads;
  auto const widest = strata::detail::larger(shape.row_bytes, shape.scale_bytes);
  auto const bytes = rows_at_once(kept.count, lists * widest) * lists * widest;
  return guarded(in_place ? bytes : 0, [&]() -> status {
    if constexpr (host_policy<Policy>)
      if (auto const s = check_tokens(policy, kept, shape, from.capacity()); !s.ok()) return s;
    move_tokens(policy, from, kept, to, lists, shape.kv_heads, shape.row_bytes, in_place);
    move_tokens(policy, scales_of(from), kept, scales_of(to), lists, shape.kv_heads,
                shape.scale_bytes, in_place);
    return {};
  });
}

}  // namespace detail

/// Token j of every sequence and head becomes the j-th that is kept; tokens behind those stay as
/// they are. What `blocks` are made of, and their tables, is the caller's to get right; a sequence
/// whose row is negative is left alone, so that a layer's write_row (row_tables.hpp) may be
/// `row_of`. Lengths are the caller's as well: those of the lists. Needs temporary memory: 32 MiB,
/// or what all tokens kept take if that is less, but room for one token of all sequences.
template <class Policy>
status compact_tokens(Policy const& policy, writable_blocks const& blocks, kept_tokens const& kept,
                      token_shape const& shape) noexcept {
  return detail::compact_blocks(policy, blocks, kept, blocks, shape, true);
}

/// The same into blocks of their own, which need room for those tokens and share none with `from`.
template <class Policy>
status compact_tokens(Policy const& policy, tensor_blocks const& from, kept_tokens const& kept,
                      writable_blocks const& to, token_shape const& shape) noexcept {
  return detail::compact_blocks(policy, from, kept, to, shape, false);
}

}  // namespace bulk

STRATA_NAMESPACE_END
