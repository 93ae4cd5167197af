// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tiles of the CPU kernels: up to 96 query rows of one (sequence, KV head), and 64 of the keys
// that any of them sees, with their scores.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

using strata::detail::key_range;

// The scores of a tile are 96 x 64 x 4 = 24 KB, a strip of queries 16 KB more at head_dim 128: what
// `multiply` reads again and again stays in levels 1 and 2. To 48 rows a key decoded and checked
// costs more (0.95 of the speed in forward, 0.92 in backward), 144 gain nothing.
inline constexpr std::int32_t tile_rows = 96;
inline constexpr std::int32_t tile_keys = 64;
/// Keys whose softmax is kept apart before it is merged: what decode spreads over shares. K and V
/// of a split at head_dim 128 are 256 KB of 16-bit numbers, some 20 us of reading, against less
/// than 1 us for merging it.
inline constexpr std::int32_t split_keys = 512;
/// How far ahead of decoding K and V are asked for. A head's part of a token is some hundred bytes,
/// and the next token's lies kv_heads times as far on, often in another page, where no hardware
/// prefetcher follows; 16 of them cover a memory latency of about 100 ns.
inline constexpr std::int32_t keys_ahead = 16;

/// Query rows of one sequence that one KV head serves. A pair is one query head of one row; pair i
/// is row i / group, head i % group.
struct row_tile {
  std::int32_t seq = 0, kv_head = 0;
  std::int64_t first = 0;  // pair
  std::int32_t count = 0;  // pairs, at most tile_rows
  key_range keys;
  std::int32_t first_key = 0, last_key = 0;  // what any of the pairs sees lies in [first, last)

  /// Work in scores; never 0.
  std::int64_t cost() const noexcept { return (std::int64_t{last_key} - first_key + 1) * count; }

  // Splits are numbered from the first key of the call on.
  std::int32_t split_of(std::int32_t key) const noexcept { return (key - keys.begin) / split_keys; }
  std::int32_t first_split() const noexcept { return split_of(first_key); }
  std::int32_t last_split() const noexcept {
    return last_key > first_key ? split_of(last_key - 1) + 1 : first_split();
  }
};

/// What the pairs of a tile see: pair i the keys at positions above low[i] and up to high[i].
template <class T>
struct row_sight {
  using integer = typename lanes<T>::integer;
  static constexpr integer least = (std::numeric_limits<std::int32_t>::min)();
  static constexpr integer most = (std::numeric_limits<std::int32_t>::max)();

  integer low[tile_rows] = {}, high[tile_rows] = {};
  integer lowest = most, low_max = least;  // of all low[i]
  integer high_min = most, highest = least;

  row_sight() noexcept = default;
  template <class Q>
  row_sight(query_rows<Q> const& q, row_tile const& tile, std::int32_t group) noexcept {
    for (std::int32_t i = 0; i < tile.count; ++i) {
      auto const row = q.row_begin(tile.seq) + static_cast<std::int32_t>((tile.first + i) / group);
      auto const position = q.position(tile.seq, row, tile.keys.end_position);
      auto const before_window = std::int64_t{position} - q.rule.window;
      low[i] = static_cast<integer>(larger<std::int64_t>(before_window, least));
      high[i] = q.rule.causal ? position : most;
      lowest = smaller(lowest, low[i]);
      low_max = larger(low_max, low[i]);
      high_min = smaller(high_min, high[i]);
      highest = larger(highest, high[i]);
    }
  }
};

/// The first key that stands after `position`. Keys ascend.
inline std::int32_t first_after(key_range const& keys, std::int64_t position) noexcept {
  auto from = keys.begin, to = keys.end;
  if (from < to && keys.position(to - 1) <= position) return to;  // as decode finds it
  while (from < to) {
    auto const middle = from + (to - from) / 2;
    if (keys.position(middle) > position)
      to = middle;
    else
      from = middle + 1;
  }
  return from;
}

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

/// A row tile at work: its queries, the keys it has come to, and the scores.
template <class T, class View>
class score_tile {
 public:
  using A = accum_t<T>;
  using v = lanes<A>;
  using vec = typename v::vec;

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
    transpose(q_.q, view_.k_dim, queries_);
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
    load<typename View::k_codec>(view_.k, view_.k_dim, k_bytes_, first, count, keys_, k_stride_);
    load<typename View::v_codec>(view_.v, view_.v_dim, v_bytes_, first, count, values_, v_stride_);
  }

  /// The products of the keys loaded with the queries; -inf where a pair does not see a key. They
  /// are scores once they are multiplied by `scale`.
  void score(std::int32_t first, std::int32_t count) noexcept {
    multiply<A>(count, columns_, view_.k_dim, {keys_, k_stride_, 1}, queries_, tile_rows, scores_,
                tile_rows, false);
    for (std::int32_t i = 0; i < count && rule_.softcap > 0; ++i)
      for (std::int32_t j = 0; j < columns_; ++j)
        scores_[i * tile_rows + j] = rule_.score(scores_[i * tile_rows + j]);
    if (tile_.keys.position(first) > sight_.low_max &&
        tile_.keys.position(first + count - 1) <= sight_.high_min)
      return;
    for (std::int32_t i = 0; i < count; ++i) {
      auto const position = tile_.keys.position(first + i);
      for (std::int32_t j = 0; j < columns_; j += v::count) {
        A* const at = scores_ + i * tile_rows + j;
        auto const sees =
            (v::load(sight_.high + j) >= position) & (v::load(sight_.low + j) < position);
        v::store(at, sees ? v::load(at) : v::all(minus_infinity<A>));
      }
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

  row_tile const& tile() const noexcept { return tile_; }
  std::int32_t columns() const noexcept { return columns_; }  // the pairs, in whole vectors
  std::int64_t k_stride() const noexcept { return k_stride_; }
  std::int64_t v_stride() const noexcept { return v_stride_; }
  A* scores() const noexcept { return scores_; }        // [tile_keys][tile_rows]
  A const* keys() const noexcept { return keys_; }      // [tile_keys][k_stride]
  A const* values() const noexcept { return values_; }  // [tile_keys][v_stride]
  strata::detail::scorer<A> const& rule() const noexcept { return rule_; }

 private:
  template <class Codec>
  void load(tensor_blocks const& blocks, std::int32_t dim, std::int64_t bytes, std::int32_t first,
            std::int32_t count, A* to, std::int64_t stride) noexcept {
    auto const head = tile_.kv_head;
    auto const row = blocks.row(tile_.seq, head, view_.kv_heads);
    auto const ahead = smaller(count + keys_ahead, tile_.last_key - first);
    std::byte const* at[tile_keys + keys_ahead];
    point_rows(blocks, row, head, first, ahead, at);
    for (std::int32_t i = 0; i < count; ++i) {
      for (std::int64_t b = 0; i + keys_ahead < ahead && b < bytes; b += 64)
        ask_for<1>(at[i + keys_ahead] + b);
      decode<Codec>(at[i], blocks.scales_at(row, head, first + i), dim, to + i * stride);
    }
  }
  template <class Codec>
  static void decode(std::byte const* row, std::byte const* scales, std::int32_t dim,
                     A* out) noexcept {
    if constexpr (std::same_as<Codec, plain_codec<A>>)
      std::memcpy(out, row, static_cast<std::size_t>(dim) * sizeof(A));
    else
      Codec::decode(row, scales, dim, out);
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
  std::int32_t columns_ = 0;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
