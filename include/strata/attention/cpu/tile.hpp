// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tiles of the CPU kernels: query rows of one (sequence, KV head), and 64 of the keys that any of
// them sees, with their scores.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

#include <strata/attention/cpu/arena.hpp>
#include <strata/attention/cpu/key_tile.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/products.hpp>
#include <strata/attention/cpu/rotation.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Pairs whose scores are computed together: a multiple of what `multiply` takes, as rows and as
/// columns. 64 keys by so many are 8 or 12 KB, which stay in level 1 from product to product.
inline constexpr std::int32_t strip_pairs = multiply_rows == 8 ? 32 : 48;
static_assert(tile_rows % strip_pairs == 0 && strip_pairs % multiply_rows == 0);

/// Calls body(tile) for the row tiles of one (sequence, KV head), of up to `rows` pairs each.
template <class T, class View, class Body>
void for_each_tile(query_rows<T> const& q, View const& view, std::int32_t seq, std::int32_t kv_head,
                   std::int32_t rows, Body&& body) noexcept {
  auto const group = q.q_heads / view.kv_heads;
  auto const pairs = std::int64_t{q.row_end(seq) - q.row_begin(seq)} * group;
  row_tile tile;
  tile.seq = seq;
  tile.kv_head = kv_head;
  tile.keys = strata::detail::keys_of(q, view, seq, kv_head);
  for (; tile.first < pairs; tile.first += rows) {
    tile.count = static_cast<std::int32_t>(smaller<std::int64_t>(rows, pairs - tile.first));
    sight_bounds const sight(q, tile, group);
    tile.first_key = first_after(tile.keys, sight.lowest);
    tile.last_key = larger(first_after(tile.keys, sight.highest), tile.first_key);
    body(tile);
  }
}

/// A row tile at work: its queries, the keys it has come to, and scores. Queries and keys are
/// rotated where the codec of K rotates: their products are the same.
template <class T, class View>
class score_tile {
 public:
  using A = accum_t<T>;
  using v = lanes<A>;
  using vec = typename v::vec;
  using k_stored = stored_as<typename View::k_codec>;

  score_tile(query_rows<T> const& q, View const& view, std::int32_t rows, arena<A>& memory) noexcept
      : q_(q),
        view_(view),
        rule_(q.rule, view.k_dim),
        group_(q.q_heads / view.kv_heads),
        queries_(memory.take(columns_size(rows, view.k_dim))),
        decoded_(view, memory) {}

  /// Elements that the constructor takes. rows: the most that a tile has.
  static std::int64_t size(View const& view, std::int32_t rows) noexcept {
    return columns_size(rows, view.k_dim) + key_tile<A, View>::size(view);
  }
  /// Elements of the rows of a tile, transposed: whole strips.
  static std::int64_t columns_size(std::int32_t rows, std::int32_t dim) noexcept {
    return ceil_divide(rows, strip_pairs) * std::int64_t{strip_pairs} * dim;
  }

  /// Takes up a tile whose scores are not needed.
  void point(row_tile const& tile) noexcept {
    tile_ = tile;
    columns_ = padded<A>(tile.count);
    first_row_ = q_.row_begin(tile.seq) + tile.first / group_;
    first_head_ = static_cast<std::int32_t>(tile.first % group_);
  }
  void begin(row_tile const& tile) noexcept {
    point(tile);
    sight_.find(q_, tile, group_);
    seen_.begin(sight_, tile.count);
    transpose(q_.q, view_.k_dim, queries_);
    if constexpr (k_stored::rotated)
      for (std::int32_t j = 0; j < columns_; j += strip_pairs)
        rotate_columns(queries_ + std::int64_t{j} * view_.k_dim, strip_pairs, view_.k_dim,
                       smaller(strip_pairs, columns_ - j));
  }

  /// to[strip][dim][strip_pairs] = the tile's rows of from[rows, q_heads, dim], transposed.
  void transpose(T const* from, std::int32_t dim, A* to) const noexcept {
    for (std::int32_t j = 0; j < columns_; j += strip_pairs, to += std::int64_t{strip_pairs} * dim)
      transpose_strip(from, dim, j, to);
  }

  /// Decodes `count` keys from `first` on and finds who sees which of them.
  void load(std::int32_t first, std::int32_t count) noexcept {
    decoded_.load(tile_, first, count);
    auto const& keys = tile_.keys;
    first_ = first;
    all_ = keys.position(first) > sight_.all.low_max &&
           keys.position(first + count - 1) <= sight_.all.high_min;
    if (all_)
      seen_.all(count);
    else
      seen_.find(keys, first, count);
  }

  /// The products of the keys loaded with the queries of the strip from pair j on, in
  /// to[key][stride]: where seen() says that a pair sees the key, -inf where it does not, and anything
  /// elsewhere. They are scores once multiplied by `scale`.
  void score(std::int32_t j, A* to, std::int64_t stride) noexcept {
    multiply_seen(decoded_.keys(), decoded_.k_stride(), view_.k_dim, queries_, j, to, stride);
    auto const end = smaller(j + strip_pairs, columns_);
    for (auto i = j; i < end; i += v::count) {
      if (rule_.softcap > 0) cap(i, to + i - j, stride);
      if (!all_) mask(i, to + i - j, stride);
    }
  }

  /// to[key][stride] = rows[key][depth] columns[depth][pair] for the strip from pair j on, where
  /// seen() says so. columns: [strip][depth][strip_pairs].
  void multiply_seen(A const* rows, std::int64_t row, std::int32_t depth, A const* columns,
                     std::int32_t j, A* to, std::int64_t stride) const noexcept {
    constexpr auto width = 2 * v::count;  // what `multiply` takes at a time
    auto const end = smaller(j + strip_pairs, columns_);
    columns += std::int64_t{j} * depth;
    for (; j < end; j += width, columns += width, to += width) {
      auto const keys = seen_.keys(j, smaller(width, end - j));
      multiply<A>(keys.last - keys.first, smaller(width, end - j), depth,
                  {rows + keys.first * row, row, 1}, columns, strip_pairs, to + keys.first * stride,
                  stride);
    }
  }
  A scale() const noexcept { return rule_.softcap > 0 ? A{1} : rule_.scale; }

  /// Index of pair i among all [rows, q_heads].
  std::int64_t at(std::int32_t i) const noexcept {
    return (first_row_ + (first_head_ + i) / group_) * q_.q_heads + head(i);
  }
  /// Query head of pair i.
  std::int64_t head(std::int32_t i) const noexcept {
    return std::int64_t{tile_.kv_head} * group_ + (first_head_ + i) % group_;
  }

  seen_keys<A> const& seen() const noexcept { return seen_; }  // of the keys loaded
  /// Zeros of the v::count pairs from j on, in at[count][stride], where seen() leaves keys out.
  void clear_unseen(std::int32_t j, std::int32_t count, A* at, std::int64_t stride) const noexcept {
    auto const keys = seen_.keys(j, v::count);
    for (std::int32_t i = 0; i < keys.first; ++i) v::store(at + i * stride, v::all(0));
    for (auto i = keys.last; i < count; ++i) v::store(at + i * stride, v::all(0));
  }
  row_tile const& tile() const noexcept { return tile_; }
  std::int32_t columns() const noexcept { return columns_; }  // the pairs, in whole vectors
  key_tile<A, View> const& decoded() const noexcept { return decoded_; }
  strata::detail::scorer<A> const& rule() const noexcept { return rule_; }

 private:
  static constexpr auto lane_count = static_cast<std::size_t>(v::count);

  // Of the strip from pair j on.
  void transpose_strip(T const* from, std::int32_t dim, std::int32_t j, A* to) const noexcept {
    for (std::int32_t i = 0; i < strip_pairs && j + i < columns_; i += v::count) {
      T const* rows[2 * lane_count];  // and those of the next vector
      for (std::int32_t r = 0; r < 2 * v::count; ++r)
        rows[r] = j + i + r < tile_.count ? from + at(j + i + r) * dim : nullptr;
      transpose_rows(rows, dim, to + i);
    }
  }
  /// to[dim][strip_pairs] = rows[v::count], transposed; asks for as many rows more, if rows are
  /// vectors. Null rows are zeros.
  static void transpose_rows(T const* const* rows, std::int32_t dim, A* to) noexcept {
    std::int32_t done = 0;
    for (; done + v::count <= dim; done += v::count) {
      auto const next = v::count + done * v::count / dim;
      ask_for_rows(rows + next, v::count + (done + v::count) * v::count / dim - next, dim);
      if constexpr (std::same_as<T, A>) {
        transpose_square(rows, done, to + done * strip_pairs, strip_pairs);
      } else {
        A wide[lane_count][lane_count];
        A const* at[lane_count];
        for (std::size_t r = 0; r < lane_count; ++r) {
          at[r] = rows[r] == nullptr ? nullptr : wide[r];
          if (rows[r] != nullptr) widen_vector(rows[r] + done, wide[r]);
        }
        transpose_square(at, 0, to + done * strip_pairs, strip_pairs);
      }
    }
    for (std::int32_t r = 0; r < v::count; ++r)
      for (auto d = done; d < dim; ++d)
        to[d * strip_pairs + r] = rows[r] == nullptr ? A{0} : strata::detail::widen(rows[r][d]);
  }
  static void widen_vector(T const* from, A* to) noexcept {
    using halves = row_reader<f16_codec>;
    if constexpr (std::same_as<T, float16> && halves::vectors == 1) {
      vec x;
      halves::load(reinterpret_cast<std::byte const*>(from), nullptr, &x);
      v::store(to, x);
    } else {
      for (std::int32_t d = 0; d < v::count; ++d) to[d] = strata::detail::widen(from[d]);
    }
  }
  /// Whole rows, in the order of memory: so the hardware follows, and a prompt of 512 tokens takes 0.96
  /// of the time.
  [[gnu::always_inline]] static void ask_for_rows(T const* const* rows, std::int32_t count,
                                                  std::int32_t dim) noexcept {
    constexpr auto line = 64 / static_cast<std::int32_t>(sizeof(T));
    for (std::int32_t r = 0; r < count && rows[r] != nullptr; ++r)
      for (std::int32_t d = 0; d < dim; d += line)
        ask_for<2>(reinterpret_cast<std::byte const*>(rows[r] + d));
  }

  // Of the v::count pairs from j on, at[key][stride].
  void cap(std::int32_t j, A* at, std::int64_t stride) noexcept {
    auto const keys = seen_.keys(j, v::count);
    for (auto i = keys.first; i < keys.last; ++i)
      for (std::int32_t lane = 0; lane < v::count; ++lane) {
        A& score = at[i * stride + lane];
        score = rule_.score(score);
      }
  }
  void mask(std::int32_t j, A* at, std::int64_t stride) noexcept {
    auto const keys = seen_.keys(j, v::count);
    auto const low = v::load(sight_.low + j), high = v::load(sight_.high + j);
    for (auto i = keys.first; i < keys.last; ++i) {
      auto const position = tile_.keys.position(first_ + i);
      auto const sees = (high >= position) & (low < position);
      v::store(at + i * stride, sees ? v::load(at + i * stride) : v::all(minus_infinity<A>));
    }
  }

  query_rows<T> const& q_;
  View const& view_;
  strata::detail::scorer<A> rule_;
  std::int32_t group_;
  A* queries_;  // [strip][k_dim][strip_pairs]
  key_tile<A, View> decoded_;
  row_tile tile_;
  row_sight<A> sight_;
  seen_keys<A> seen_;
  std::int64_t first_row_ = 0;   // of the call
  std::int32_t first_head_ = 0;  // of the group
  std::int32_t columns_ = 0;
  std::int32_t first_ = 0;  // of the keys loaded
  bool all_ = false;        // whether all pairs see all of them
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
