// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Up to 64 keys of one (sequence, KV head) and their values, decoded for all query rows of a tile.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/attention/cpu/arena.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/rotation.hpp>
#include <strata/attention/cpu/row_pointers.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// How far ahead of decoding K and V are asked for: so many bytes of rows, 4 rows of 128 floats. The
/// next token's part lies kv_heads times as far on, often in another page, where no hardware
/// prefetcher follows; but rows that lie 2 or 4 KB apart share few lines of level 1, and 16 rows
/// ahead are 0.99 of the speed.
inline constexpr std::int64_t bytes_ahead = 2048;
inline constexpr std::int32_t keys_ahead = 16;  // at most

/// K is as it is stored: where its codec rotates it is still rotated.
template <class A, class View>
class key_tile {
 public:
  key_tile(View const& view, arena<A>& memory) noexcept
      : view_(view),
        k_stride_(stride_of<A>(view.k_dim)),
        v_stride_(stride_of<A>(view.v_dim)),
        keys_(memory.zeros(tile_keys * k_stride_)),
        values_(memory.zeros(tile_keys * v_stride_)) {}

  /// Elements that the constructor takes.
  static std::int64_t size(View const& view) noexcept {
    return std::int64_t{tile_keys} * (stride_of<A>(view.k_dim) + stride_of<A>(view.v_dim));
  }

  /// Decodes `count` keys from `first` on, and their values, and asks for those to come.
  void load(row_tile const& tile, std::int32_t first, std::int32_t count) noexcept {
    load<typename stored_as<typename View::k_codec>::codec>(view_.k, tile, view_.k_dim, first,
                                                            count, keys_, k_stride_);
    load<typename View::v_codec>(view_.v, tile, view_.v_dim, first, count, values_, v_stride_);
  }

  A const* keys() const noexcept { return keys_; }      // [tile_keys][k_stride]
  A const* values() const noexcept { return values_; }  // [tile_keys][v_stride]
  std::int64_t k_stride() const noexcept { return k_stride_; }
  std::int64_t v_stride() const noexcept { return v_stride_; }
  bool keys_finite(std::int32_t count) const noexcept {
    return all_finite(keys_, count * k_stride_);
  }
  bool values_finite(std::int32_t count) const noexcept {
    return all_finite(values_, count * v_stride_);
  }

 private:
  using v = lanes<A>;

  template <class Codec>
  void load(tensor_blocks const& blocks, row_tile const& tile, std::int32_t dim, std::int32_t first,
            std::int32_t count, A* to, std::int64_t stride) noexcept {
    auto const head = tile.kv_head;
    auto const bytes = std::int64_t{Codec::row_bytes(dim)};
    auto const row = blocks.row(tile.seq, head, view_.kv_heads);
    auto const rows =
        smaller<std::int64_t>(bytes_ahead / larger<std::int64_t>(bytes, 1), keys_ahead);
    auto const distance = static_cast<std::int32_t>(larger<std::int64_t>(rows, 2));
    auto const ahead = smaller(count + distance, tile.last_key - first);
    std::byte const* at[tile_keys + keys_ahead];
    point_rows(blocks, row, head, first, ahead, at);
    for (std::int32_t i = 0; i < count; ++i) {
      for (std::int64_t b = 0; i + distance < ahead && b < bytes; b += 64)
        ask_for<1>(at[i + distance] + b);
      decode<Codec>(at[i], blocks.scales_at(row, head, first + i), dim, to + i * stride);
    }
  }
  template <class Codec>
  static void decode(std::byte const* row, std::byte const* scales, std::int32_t dim,
                     A* out) noexcept {
    if constexpr (std::same_as<Codec, plain_codec<A>>)
      std::memcpy(out, row, static_cast<std::size_t>(dim) * sizeof(A));
    else if constexpr (std::same_as<A, float> &&
                       (std::same_as<Codec, f16_codec> || std::same_as<Codec, int4_codec>))
      decode_in_order<Codec>(row, scales, dim, out);
    else
      Codec::decode(row, scales, dim, out);
  }
  /// By vectors where the reader keeps the order: with AVX2 g++ widens float16 one by one, 5 times
  /// slower.
  template <class Codec>
  static void decode_in_order(std::byte const* row, std::byte const* scales, std::int32_t dim,
                              float* out) noexcept {
    using reader = row_reader<Codec>;
    std::int32_t i = 0;
    if constexpr (reader::element(1) == 1)
      for (; i < whole_of<reader>(dim); i += reader::elements) {
        typename v::vec x[reader::vectors];
        load_group<reader>({row, scales}, i, x);
        for (std::int32_t j = 0; j < reader::vectors; ++j) v::store(out + i + j * v::count, x[j]);
      }
    Codec::decode(row + Codec::row_bytes(i), scales + Codec::scale_bytes(i), dim - i, out + i);
  }

  View const& view_;
  std::int64_t k_stride_, v_stride_;
  A *keys_, *values_;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
