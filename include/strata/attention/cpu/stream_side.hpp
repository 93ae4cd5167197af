// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where the rows of a tile of K or V lie, and those of the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <strata/attention/cpu/arena.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/row_pointers.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// One side, K or V, of a tile at work: where its rows lie, in the cache or decoded.
template <class Codec>
class stream_side {
 public:
  static constexpr bool decodes = !row_reader<Codec>::exists;
  using reader = std::conditional_t<decodes, row_reader<f32_codec>, row_reader<Codec>>;
  /// Whether rows come without the scale that a head's share.
  static constexpr bool scaled_by_head = !decodes && head_scaled_codec<Codec>;

  /// keys: of a tile, stream_keys at most.
  stream_side(tensor_blocks const& blocks, std::int32_t dim, std::int32_t keys,
              arena<float>& memory) noexcept
      : blocks_(blocks),
        scales_(blocks),
        dim_(dim),
        keys_(keys),
        stride_(stride_of<float>(dim)),
        decoded_(memory.take(size(dim))) {
    scales_.data = blocks.scales;
    scales_.stride = blocks.scale_stride;
  }

  /// Elements that the constructor takes.
  static std::int64_t size(std::int32_t dim) noexcept {
    return decodes ? std::int64_t{stream_keys} * stride_of<float>(dim) : 0;
  }

  /// The heads that are read side by side.
  void take_up(std::int32_t first_head, std::int32_t heads) noexcept {
    auto const step = std::int64_t{blocks_.stride.head}, row = Codec::row_bytes(dim_);
    bool const adjoin = !blocks_.row_per_head && step >= row && step < row + 64 &&
                        heads * step <= blocks_.stride.token;
    next_.take_up({first_head, heads, step, row, adjoin}, keys_);
  }

  /// `count` tokens from `first` on, and what to ask for of those that come a tile later,
  /// before `end`.
  stream_rows rows(std::int64_t row, std::int32_t head, std::int32_t first, std::int32_t count,
                   std::int32_t end) noexcept {
    auto const ahead = smaller(end - first, count + keys_);
    find_tokens(row, first, ahead);
    auto const offset = head * blocks_.stride.head;
    for (std::int32_t i = 0; i < keys_; ++i) at_[i] = tokens_[i] + offset;
    for (std::int32_t i = 0; i < asked_again; ++i) at_[keys_ + i] = at_[keys_ - 1];
    next_.find(tokens_ + keys_, stride_ahead_, head);
    if constexpr (reader::scales_apart) point_rows(scales_, row, head, first, count, scales_at_);
    if constexpr (decodes)
      for (std::int32_t i = 0; i < count; ++i) {
        auto* const to = decoded_ + i * stride_;
        Codec::decode(at_[i], blocks_.scales_at(row, head, first + i), dim_, to);
        at_[i] = reinterpret_cast<std::byte const*>(to);
      }
    return {at_, scales_at_, dim_};
  }

  /// For what comes next, in so many passes over `rows`.
  stream_asks ask(std::int32_t passes) const noexcept { return next_.ask(passes); }

  /// What all rows of the head are to be multiplied by: the scale beside one of its tokens.
  float head_scale(std::int64_t row, std::int32_t head, std::int32_t token) const noexcept {
    float scale = 1;
    if constexpr (scaled_by_head)
      std::memcpy(&scale, blocks_.scales_at(row, head, token), sizeof(scale));
    return scale;
  }

 private:
  /// Where head 0 of `count` tokens lies: found once for all heads that are kept in one row.
  void find_tokens(std::int64_t row, std::int32_t first, std::int32_t count) noexcept {
    if (row == row_ && first == first_ && count == count_) return;
    row_ = row, first_ = first, count_ = count;
    point_rows(blocks_, row, 0, first, count, tokens_);
    for (auto i = count; i < 2 * keys_; ++i) tokens_[i] = tokens_[count - 1];
    stride_ahead_ = even_stride(tokens_ + keys_, keys_);
  }

  tensor_blocks const& blocks_;
  tensor_blocks scales_;  // where the codec keeps them apart
  std::int32_t dim_, keys_;
  std::int64_t stride_;
  float* decoded_;  // [stream_keys][stride], of codecs without a reader
  std::int64_t row_ = -1;
  std::int32_t first_ = 0, count_ = 0;
  std::byte const* tokens_[2 * stream_keys];        // of the tile and the next, head 0
  std::int64_t stride_ahead_ = 0;                   // even_stride of the next
  std::byte const* at_[stream_keys + asked_again];  // the tile of the head at work
  stream_lines next_;                               // what it asks for
  std::byte const* scales_at_[stream_keys];
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
