// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where the rows of a tile of K or V lie, and those of the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/attention/cpu/tile.hpp>
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

  stream_side(tensor_blocks const& blocks, std::int32_t dim, arena<float>& memory) noexcept
      : blocks_(blocks),
        scales_(blocks),
        dim_(dim),
        stride_(stride_of<float>(dim)),
        decoded_(memory.take(size(dim))) {
    scales_.data = blocks.scales;
    scales_.stride = blocks.scale_stride;
  }

  /// Elements that the constructor takes.
  static std::int64_t size(std::int32_t dim) noexcept {
    return decodes ? std::int64_t{stream_keys} * stride_of<float>(dim) : 0;
  }

  /// `count` tokens from `first` on, and those that come `stream_keys` later, before `end`.
  stream_rows rows(std::int64_t row, std::int32_t head, std::int32_t first, std::int32_t count,
                   std::int32_t end) noexcept {
    auto const ahead = smaller(end - first, count + stream_keys);
    point_rows(blocks_, row, head, first, ahead, at_);
    for (auto i = ahead; i < count + stream_keys; ++i) at_[i] = at_[count - 1];
    if constexpr (reader::scales_apart) point_rows(scales_, row, head, first, count, scales_at_);
    if constexpr (decodes)
      for (std::int32_t i = 0; i < count; ++i) {
        auto* const to = decoded_ + i * stride_;
        Codec::decode(at_[i], blocks_.scales_at(row, head, first + i), dim_, to);
        at_[i] = reinterpret_cast<std::byte const*>(to);
      }
    return {at_, at_ + stream_keys, scales_at_, dim_};
  }

 private:
  tensor_blocks const& blocks_;
  tensor_blocks scales_;  // where the codec keeps them apart
  std::int32_t dim_;
  std::int64_t stride_;
  float* decoded_;  // [stream_keys][stride], of codecs without a reader
  std::byte const* at_[2 * stream_keys];
  std::byte const* scales_at_[stream_keys];
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
