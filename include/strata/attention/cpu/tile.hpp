// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tiles of the CPU kernels: up to 96 query rows of one (sequence, KV head), and 64 of the keys
// that any of them sees, with their scores.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/rotation.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

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

/// Calls body(tile) for the row tiles of one (sequence, KV head).
template <class T, class View, class Body>
void for_each_tile(query_rows<T> const& q, View const& view, std::int32_t seq, std::int32_t kv_head,
                   Body&& body) noexcept {
  auto const group = q.q_heads / view.kv_heads;
  auto const pairs = std::int64_t{q.row_end(seq) - q.row_begin(seq)} * group;
  row_tile tile;
  tile.seq = seq;
  tile.kv_head = kv_head;
  tile.keys = strata::detail::keys_of(q, view, seq, kv_head);
  for (; tile.first < pairs; tile.first += tile_rows) {
    tile.count = static_cast<std::int32_t>(smaller<std::int64_t>(tile_rows, pairs - tile.first));
    row_sight<accum_t<T>> const sight(q, tile, group);
    tile.first_key = first_after(tile.keys, sight.lowest);
    tile.last_key = larger(first_after(tile.keys, sight.highest), tile.first_key);
    body(tile);
  }
}

/// The same for all of a call.
template <class T, class View, class Body>
void for_each_tile(query_rows<T> const& q, View const& view, Body&& body) noexcept {
  for (std::int32_t seq = 0; seq < q.num_seqs; ++seq)
    for (std::int32_t head = 0; head < view.kv_heads; ++head)
      for_each_tile(q, view, seq, head, body);
}

/// at[i] = where head `head` of token first + i lies in a row, for `count` tokens, block by block.
inline void point_rows(tensor_blocks const& blocks, std::int64_t row, std::int32_t head,
                       std::int32_t first, std::int32_t count, std::byte const** at) noexcept {
  for (std::int32_t i = 0; i < count;) {
    auto const* const begin = blocks.at(row, head, first + i);
    auto const run = smaller(blocks.block_size - (first + i) % blocks.block_size, count - i);
    for (std::int32_t j = 0; j < run; ++j) at[i + j] = begin + j * blocks.stride.token;
    i += run;
  }
}

/// Takes a workspace apart.
template <class T>
class arena {
 public:
  explicit arena(T* data) noexcept : at_(data) {}
  T* take(std::int64_t count) noexcept {
    T* const taken = at_;
    at_ += count;
    return taken;
  }
  /// Zeros, so that what lies between and behind rows can be read.
  T* zeros(std::int64_t count) noexcept {
    T* const taken = take(count);
    for (std::int64_t i = 0; i < count; ++i) taken[i] = 0;
    return taken;
  }

 private:
  T* at_;
};

/// A row tile at work: its queries, the keys it has come to, and the scores. Queries and keys are
/// rotated where the codec of K rotates: their products are the same.
template <class T, class View>
class score_tile {
 public:
  using A = accum_t<T>;
  using v = lanes<A>;
  using vec = typename v::vec;
  using k_stored = stored_as<typename View::k_codec>;

  score_tile(query_rows<T> const& q, View const& view, arena<A>& memory) noexcept
      : q_(q),
        view_(view),
        rule_(q.rule, view.k_dim),
        k_bytes_(View::k_codec::row_bytes(view.k_dim)),
        v_bytes_(View::v_codec::row_bytes(view.v_dim)),
        group_(q.q_heads / view.kv_heads),
        k_stride_(stride_of<A>(view.k_dim)),
        v_stride_(stride_of<A>(view.v_dim)),
        queries_(memory.take(std::int64_t{tile_rows} * view.k_dim)),
        keys_(memory.zeros(tile_keys * k_stride_)),
        values_(memory.zeros(tile_keys * v_stride_)),
        scores_(memory.take(tile_keys * tile_rows)) {}

  /// Elements that the constructor takes.
  static std::int64_t size(View const& view) noexcept {
    return std::int64_t{tile_rows} * view.k_dim + tile_keys * tile_rows +
           std::int64_t{tile_keys} * (stride_of<A>(view.k_dim) + stride_of<A>(view.v_dim));
  }

  /// Takes up a tile whose scores are not needed.
  void point(row_tile const& tile) noexcept {
    tile_ = tile;
    columns_ = padded<A>(tile.count);
  }
  void begin(row_tile const& tile) noexcept {
    point(tile);
    sight_ = row_sight<A>(q_, tile, group_);
    seen_ = seen_keys<A>(sight_, tile.count);
    transpose(q_.q, view_.k_dim, queries_);
    if constexpr (k_stored::rotated) rotate_columns(queries_, tile_rows, view_.k_dim, columns_);
  }

  /// to[dim][tile_rows] = the tile's rows of from[rows, q_heads, dim], transposed.
  void transpose(T const* from, std::int32_t dim, A* STRATA_RESTRICT to) const noexcept {
    std::int32_t done = 0;
    if constexpr (std::same_as<T, A>) {
      done = dim / v::count * v::count;
      for (std::int32_t i = 0; i < columns_; i += v::count)
        for (std::int32_t j = 0; j < done; j += v::count) {
          T const* rows[static_cast<std::size_t>(v::count)];
          for (std::int32_t r = 0; r < v::count; ++r)
            rows[r] = i + r < tile_.count ? from + at(i + r) * dim + j : nullptr;
          transpose_square(rows, to + j * tile_rows + i, tile_rows);
        }
    }
    for (std::int32_t i = 0; i < columns_; ++i) {
      T const* STRATA_RESTRICT const row = i < tile_.count ? from + at(i) * dim : nullptr;
      for (auto j = done; j < dim; ++j)
        to[j * tile_rows + i] = row == nullptr ? A{0} : strata::detail::widen(row[j]);
    }
  }

  /// Decodes `count` keys from `first` on, and their values, and asks for those to come.
  void load(std::int32_t first, std::int32_t count) noexcept {
    load<typename k_stored::codec>(view_.k, view_.k_dim, k_bytes_, first, count, keys_, k_stride_);
    load<typename View::v_codec>(view_.v, view_.v_dim, v_bytes_, first, count, values_, v_stride_);
  }

  /// The products of the keys loaded with the queries where seen() says that a pair sees the key,
  /// -inf where it does not, and anything elsewhere. They are scores once multiplied by `scale`.
  void score(std::int32_t first, std::int32_t count) noexcept {
    auto const& keys = tile_.keys;
    bool const all = keys.position(first) > sight_.low_max &&
                     keys.position(first + count - 1) <= sight_.high_min;
    if (all)
      seen_.all(count);
    else
      seen_.find(keys, first, count);
    multiply_seen(keys_, k_stride_, view_.k_dim, queries_, scores_);
    for (std::int32_t j = 0; j < columns_; j += v::count) {
      if (rule_.softcap > 0) cap(j);
      if (!all) mask(first, j);
    }
  }

  /// to[key][pair] = rows[key][depth] columns[depth][pair], where seen() says so.
  void multiply_seen(A const* rows, std::int64_t stride, std::int32_t depth, A const* columns,
                     A* to) const noexcept {
    constexpr auto width = 2 * v::count;  // a strip of `multiply`
    for (std::int32_t j = 0; j < columns_; j += width) {
      auto const keys = seen_.keys(j, smaller(width, columns_ - j));
      multiply<A>(keys.last - keys.first, smaller(width, columns_ - j), depth,
                  {rows + keys.first * stride, stride, 1}, columns + j, tile_rows,
                  to + keys.first * tile_rows + j, tile_rows, false);
    }
  }
  A scale() const noexcept { return rule_.softcap > 0 ? A{1} : rule_.scale; }

  bool values_finite(std::int32_t count) const noexcept {
    return all_finite(values_, count * v_stride_);
  }
  bool keys_finite(std::int32_t count) const noexcept {
    return all_finite(keys_, count * k_stride_);
  }

  /// Index of pair i among all [rows, q_heads].
  std::int64_t at(std::int32_t i) const noexcept {
    auto const pair = tile_.first + i;
    return (q_.row_begin(tile_.seq) + pair / group_) * q_.q_heads + head(i);
  }
  /// Query head of pair i.
  std::int64_t head(std::int32_t i) const noexcept {
    return tile_.kv_head * group_ + (tile_.first + i) % group_;
  }

  seen_keys<A> const& seen() const noexcept { return seen_; }  // of the keys scored
  /// Zeros of the v::count pairs from j on, in at[count][tile_rows], where seen() leaves keys out.
  void clear_unseen(A* at, std::int32_t j, std::int32_t count) const noexcept {
    auto const keys = seen_.keys(j, v::count);
    for (std::int32_t i = 0; i < keys.first; ++i) v::store(at + i * tile_rows + j, v::all(0));
    for (auto i = keys.last; i < count; ++i) v::store(at + i * tile_rows + j, v::all(0));
  }
  row_tile const& tile() const noexcept { return tile_; }
  std::int32_t columns() const noexcept { return columns_; }  // the pairs, in whole vectors
  std::int64_t k_stride() const noexcept { return k_stride_; }
  std::int64_t v_stride() const noexcept { return v_stride_; }
  A* scores() const noexcept { return scores_; }        // [tile_keys][tile_rows]
  A const* keys() const noexcept { return keys_; }      // [tile_keys][k_stride]
  A const* values() const noexcept { return values_; }  // [tile_keys][v_stride]
  strata::detail::scorer<A> const& rule() const noexcept { return rule_; }

 private:
  // The scores of the v::count pairs from j on.
  void cap(std::int32_t j) noexcept {
    auto const keys = seen_.keys(j, v::count);
    for (auto i = keys.first; i < keys.last; ++i)
      for (std::int32_t lane = 0; lane < v::count; ++lane) {
        A& score = scores_[i * tile_rows + j + lane];
        score = rule_.score(score);
      }
  }
  void mask(std::int32_t first, std::int32_t j) noexcept {
    auto const keys = seen_.keys(j, v::count);
    auto const low = v::load(sight_.low + j), high = v::load(sight_.high + j);
    for (auto i = keys.first; i < keys.last; ++i) {
      auto const position = tile_.keys.position(first + i);
      auto const sees = (high >= position) & (low < position);
      A* const at = scores_ + i * tile_rows + j;
      v::store(at, sees ? v::load(at) : v::all(minus_infinity<A>));
    }
  }

  template <class Codec>
  void load(tensor_blocks const& blocks, std::int32_t dim, std::int64_t bytes, std::int32_t first,
            std::int32_t count, A* to, std::int64_t stride) noexcept {
    auto const head = tile_.kv_head;
    auto const row = blocks.row(tile_.seq, head, view_.kv_heads);
    auto const rows =
        smaller<std::int64_t>(bytes_ahead / larger<std::int64_t>(bytes, 1), keys_ahead);
    auto const distance = static_cast<std::int32_t>(larger<std::int64_t>(rows, 2));
    auto const ahead = smaller(count + distance, tile_.last_key - first);
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
        vec x[reader::vectors];
        load_group<reader>({row, scales}, i, x);
        for (std::int32_t j = 0; j < reader::vectors; ++j) v::store(out + i + j * v::count, x[j]);
      }
    Codec::decode(row + Codec::row_bytes(i), scales + Codec::scale_bytes(i), dim - i, out + i);
  }

  query_rows<T> const& q_;
  View const& view_;
  strata::detail::scorer<A> rule_;
  std::int64_t k_bytes_, v_bytes_;  // of a key and a value in the cache
  std::int32_t group_;
  std::int64_t k_stride_, v_stride_;
  A* queries_;  // [k_dim][tile_rows]
  A *keys_, *values_, *scores_;
  row_tile tile_;
  row_sight<A> sight_;
  seen_keys<A> seen_;
  std::int32_t columns_ = 0;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
