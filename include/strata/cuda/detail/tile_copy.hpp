// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How K and V of some tokens come into shared memory: the tile of K, the tile of V, and where the
// codecs keep scales apart those of K and of V.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/cuda/detail/tile_reader.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// Where what lies in a stage of `Keys` tokens.
template <class T, class View, std::int32_t Dim, std::int32_t Keys>
struct kv_tiles {
  using weight = weight_element_t<typename View::v_codec>;
  using k_reader = tile_reader<typename View::k_codec, T, Dim>;
  using v_reader = tile_reader<typename View::v_codec, weight, Dim>;
  static constexpr std::int32_t v_offset = Keys * k_reader::pitch;
  static constexpr std::int32_t k_scale_offset = v_offset + Keys * v_reader::pitch;
  static constexpr std::int32_t v_scale_offset = k_scale_offset + Keys * k_reader::scale_bytes;
  static constexpr std::int32_t bytes = v_scale_offset + Keys * v_reader::scale_bytes;
  static_assert(bytes % 16 == 0);
};

/// One warp's share of a stage of `Tiles`: K and V of `Rows` tokens. Lanes 0 .. Rows - 1 know where
/// the K of the tokens lies, as many lanes after them where the V does: each token's place is found
/// once, a stage ahead of the copies, which ask the lanes for it.
template <class Tiles, class View, std::int32_t Rows>
class tile_copier {
 public:
  using k_reader = typename Tiles::k_reader;
  using v_reader = typename Tiles::v_reader;

  /// The warp's tokens are rows `first_row` on of every stage.
  template <thread_block Block>
  STRATA_DEVICE tile_copier(Block const& block, View const& view,
                            strata::detail::key_range const& keys, std::int32_t seq,
                            std::int32_t kv_head, std::int32_t first_row)
      : view_(view),
        begin_(keys.begin),
        end_(keys.end),
        head_(kv_head),
        is_k_(lane_of(block) < Rows),
        first_row_(first_row),
        own_row_(first_row + lane_of(block) % Rows),
        row_(is_k_ ? view.k.row(seq, head_, view.kv_heads)
                   : view.v.row(seq, head_, view.kv_heads)) {}

  /// Finds the tokens of the stage that begins with token `first`: from where the last ones were, as
  /// long as they are in the same block.
  STRATA_DEVICE void find(std::int32_t first) {
    auto const token = first + own_row_, step = token - token_;
    bool const exists = token >= begin_ && token < end_;
    auto const& blocks = is_k_ ? view_.k : view_.v;
    if (exists && step < left_) {
      place_ += step * blocks.stride.token;
      if constexpr (k_reader::span > 0 || v_reader::span > 0)
        if (scale_place_ != nullptr) scale_place_ += step * blocks.scale_stride.token;
      left_ -= step;
    } else {
      place_ = nowhere;
      left_ = 0;
      if (!exists) return;
      place_ = blocks.at(row_, head_, token) - blocks.data;
      if constexpr (k_reader::span > 0 || v_reader::span > 0)
        scale_place_ = blocks.scales_at(row_, head_, token);
      left_ = blocks.block_size - token % blocks.block_size;
    }
    token_ = token;
  }

  /// Sends what was found last on its way.
  template <thread_block Block>
  STRATA_DEVICE void copy(Block const& block, std::byte* stage) const {
    // Mostly all tokens are there, one behind the other in a block.
    auto const k_first = block.shuffle(place_, 0), v_first = block.shuffle(place_, Rows);
    auto const first = is_k_ ? k_first : v_first;
    auto const apart = (is_k_ ? view_.k : view_.v).stride.token;
    bool const stray = first == nowhere || place_ != first + (own_row_ - first_row_) * apart;
    if (!block.any(lane_of(block) < 2 * Rows && stray)) {
      copy_run<k_reader>(block, view_.k.data + k_first, view_.k.stride.token, stage);
      copy_run<v_reader>(block, view_.v.data + v_first, view_.v.stride.token,
                         stage + Tiles::v_offset);
    } else {
      copy_rows<k_reader>(block, view_.k.data, stage, 0);
      copy_rows<v_reader>(block, view_.v.data, stage + Tiles::v_offset, Rows);
    }
    if (lane_of(block) >= 2 * Rows) return;
    if constexpr (k_reader::span > 0)
      if (is_k_) copy_scales<k_reader>(block, stage + Tiles::k_scale_offset);
    if constexpr (v_reader::span > 0)
      if (!is_k_) copy_scales<v_reader>(block, stage + Tiles::v_scale_offset);
  }

 private:
  /// Rows from `data` on, `apart` bytes from one to the next: 3 instructions for each 16 bytes of a
  /// lane, where finding every row takes 25.
  template <class Reader, thread_block Block>
  STRATA_DEVICE void copy_run(Block const& block, std::byte const* data, std::int64_t apart,
                              std::byte* tile) const {
    constexpr std::int32_t pieces = Reader::row_bytes / 16, at_once = warp_size / pieces;
    if constexpr (at_once * pieces == warp_size && Rows % at_once == 0) {
      auto const row = lane_of(block) / pieces, at = lane_of(block) % pieces * 16;
      auto const* from = data + row * apart + at;
      auto* const to = tile + (first_row_ + row) * Reader::pitch + at;
      unrolled<Rows / at_once>([&](std::int32_t i) {
        block.template copy_async<16>(to + i * at_once * Reader::pitch, from, true);
        from += at_once * apart;
      });
    } else {
      for (std::int32_t i = lane_of(block); i < Rows * pieces; i += warp_size)
        block.template copy_async<16>(
            tile + (first_row_ + i / pieces) * Reader::pitch + i % pieces * 16,
            data + i / pieces * apart + i % pieces * 16, true);
    }
  }
  template <class Reader, thread_block Block>
  STRATA_DEVICE void copy_rows(Block const& block, std::byte const* data, std::byte* tile,
                               std::int32_t first_lane) const {
    constexpr std::int32_t pieces = Reader::row_bytes / 16;
    static_assert(Rows * pieces % warp_size == 0);
#if defined(__CUDACC__)
#pragma unroll 1  // rare, and instructions have to be fetched
#endif
    for (std::int32_t i = lane_of(block); i < Rows * pieces; i += warp_size) {
      auto const row = i / pieces, at = i % pieces * 16;
      auto const place = block.shuffle(place_, first_lane + row);
      block.template copy_async<16>(tile + (first_row_ + row) * Reader::pitch + at,
                                    data + (place == nowhere ? 0 : place + at), place != nowhere);
    }
  }
  template <class Reader, thread_block Block>
  STRATA_DEVICE void copy_scales(Block const& block, std::byte* scales) const {
    constexpr std::int32_t bytes = Reader::scale_bytes, step = bytes % 16 == 0 ? 16 : bytes;
    for (std::int32_t at = 0; at < bytes; at += step)
      block.template copy_async<step>(scales + own_row_ * bytes + at, scale_place_ + at,
                                      place_ != nowhere);
  }

  static constexpr std::int64_t nowhere = (std::numeric_limits<std::int64_t>::min)();

  View const& view_;
  std::int32_t begin_, end_;
  std::int32_t head_;
  bool is_k_;
  std::int32_t first_row_, own_row_;
  std::int64_t row_;
  std::int32_t token_ = 0, left_ = 0;  // that was found last, and those of its block from there on
  std::int64_t place_ = nowhere;       // from the beginning of the tensor
  std::byte const* scale_place_ = nullptr;
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
