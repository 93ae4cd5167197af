// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// blocked_attention forward: one row tile against its keys, online softmax by tiles and splits.
#pragma once

#include <cstdint>

#include <strata/attention/cpu/arena.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/products.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/attention/cpu/state.hpp>
#include <strata/attention/cpu/tile.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

template <class T, class View>
class forward_pass {
  using A = accum_t<T>;

 public:
  /// rows: the most that a tile of the call has.
  forward_pass(query_rows<T> const& q, View const& view, std::int32_t rows, A* scratch) noexcept
      : forward_pass(q, view, rows, arena<A>(scratch)) {}

  /// Elements of scratch.
  static std::int64_t size(View const& view, std::int32_t rows) noexcept {
    return score_tile<T, View>::size(view, rows) + scores_size +
           2 * tile_state<A>::size(rows, stride_of<A>(view.v_dim));
  }

  /// A tile from queries to output.
  void run(row_tile const& tile) noexcept {
    tile_.begin(tile);
    auto split = tile.first_split();
    if (split < tile.last_split() && q_.sink(0) == nullptr)
      read_split(split++, total_);  // what merging it into nothing would give
    else
      start_total();
    for (; split < tile.last_split(); ++split) {
      read_split(split, part_);
      merge(part_);
    }
    write_output();
  }

  /// One split of a tile, left in `to`.
  void run_split(row_tile const& tile, std::int32_t split, A* to) noexcept {
    tile_.begin(tile);
    read_split(split, tile_state<A>(to, rows_));
  }

  /// The output of a tile whose splits lie in `parts`, `distance` elements from one to the next.
  void combine(row_tile const& tile, A* parts, std::int64_t distance) noexcept {
    tile_.point(tile);
    start_total();
    for (auto s = tile.first_split(); s < tile.last_split(); ++s, parts += distance)
      merge(tile_state<A>(parts, rows_));
    write_output();
  }

 private:
  using v = lanes<A>;
  using vec = typename v::vec;
  static constexpr std::int64_t scores_size = tile_keys * strip_pairs;

  forward_pass(query_rows<T> const& q, View const& view, std::int32_t rows,
               arena<A> memory) noexcept
      : q_(q),
        v_dim_(view.v_dim),
        rows_(rows),
        tile_(q, view, rows, memory),
        stride_(tile_.decoded().v_stride()),
        scores_(memory.take(scores_size)),
        part_(memory.take(tile_state<A>::size(rows, stride_)), rows),
        total_(memory.take(tile_state<A>::size(rows, stride_)), rows) {}

  void read_split(std::int32_t split, tile_state<A> to) noexcept {
    auto const& tile = tile_.tile();
    to.begin(tile.count);
    auto const begin = tile.keys.begin + split * split_keys;
    auto const end = smaller(std::int64_t{begin} + split_keys, std::int64_t{tile.last_key});
    for (std::int64_t t = begin; t < end; t += tile_keys) {
      auto const first = larger<std::int64_t>(t, tile.first_key);
      auto const last = smaller<std::int64_t>(t + tile_keys, end);
      if (first < last)
        read_keys(static_cast<std::int32_t>(first), static_cast<std::int32_t>(last - first), to);
    }
  }

  /// Strip by strip of the pairs, from scores to sums, so that scores stay in level 1.
  void read_keys(std::int32_t first, std::int32_t count, tile_state<A> to) noexcept {
    tile_.load(first, count);
    auto const& keys = tile_.decoded();
    bool const finite = keys.values_finite(count);
    for (std::int32_t j = 0; j < tile_.columns(); j += strip_pairs) {
      tile_.score(j, scores_, strip_pairs);
      A kept[strip_pairs];
      weigh(j, count, to, kept);
      auto const pairs = smaller(strip_pairs, tile_.tile().count - j);
      auto* const sums = to.values + j * stride_;
      matrix<A> const weights{scores_, 1, strip_pairs};
      kept_rows<A> const factors{kept};
      if (finite)
        multiply_parts(pairs, v_dim_, tile_.seen().keys() + j / multiply_rows, weights,
                       keys.values(), stride_, sums, stride_, factors);
      else
        multiply_nonzero(pairs, v_dim_, count, weights, keys.values(), stride_, sums, stride_,
                         factors);
    }
  }

  /// Turns the scores of the strip from pair `begin` on into weights against their new maxima, and
  /// says in `kept` what their sums so far are to be multiplied by.
  void weigh(std::int32_t begin, std::int32_t count, tile_state<A> to, A* kept) noexcept {
    A const scale = tile_.scale();
    auto const end = smaller(begin + strip_pairs, tile_.columns());
    for (auto j = begin; j < end; j += v::count) {
      A* const scores = scores_ + j - begin;  // [count][strip_pairs]
      auto const keys = tile_.seen().keys(j, v::count);
      vec const old = v::load(to.max + j);
      vec max = v::all(minus_infinity<A>);
      for (auto i = keys.first; i < keys.last; ++i) {
        vec const score = v::load(scores + i * strip_pairs);
        max = score > max ? score : max;  // passes a NaN by: it shows in its weight
      }
      max = in_register(max * scale);  // the largest product makes the largest score
      max = old > max ? old : max;
      vec const base = max == minus_infinity<A> ? v::all(0) : max;
      vec const keep = exponential(old - base);
      vec sum = v::load(to.sum + j) * keep;
      tile_.clear_unseen(j, count, scores, strip_pairs);
      for (auto i = keys.first; i < keys.last; ++i) {
        A* const at = scores + i * strip_pairs;
        vec const weight = exponential(in_register(v::load(at) * scale) - base);
        v::store(at, weight);
        sum += weight;
      }
      v::store(to.max + j, max);
      v::store(to.sum + j, sum);
      v::store(kept + j - begin, keep);
    }
  }

  /// The state before any key: the sinks, if this call counts them.
  void start_total() noexcept {
    auto const count = tile_.tile().count;
    total_.clear(count, stride_);
    for (std::int32_t i = 0; i < count; ++i) start_row(total_, i, q_.sink(tile_.head(i)));
  }

  void merge(tile_state<A> part) noexcept {
    detail::merge(total_, part, tile_.tile().count, stride_, v_dim_);
  }

  /// For writing. Inlined by force, as ask_for is.
  [[gnu::always_inline]] void ask_for_output(std::int32_t i) const noexcept {
    constexpr auto line = 64 / static_cast<std::int32_t>(sizeof(T));
    if (i >= tile_.tile().count) return;
    T const* const out = q_.out + tile_.at(i) * v_dim_;
    for (std::int32_t j = 0; j < v_dim_; j += line) __builtin_prefetch(out + j, 1, 3);
  }
  void write_output() noexcept {
    for (std::int32_t i = 0; i < tile_.tile().count; ++i) {
      softmax_state<A> const row{total_.max[i], total_.sum[i]};
      A const* STRATA_RESTRICT const from = total_.values + i * stride_;
      T* STRATA_RESTRICT const out = q_.out + tile_.at(i) * v_dim_;
      ask_for_output(i + 4);
      A const part = row.empty() ? A{0} : 1 / row.sum;
      for (std::int32_t j = 0; j < v_dim_; ++j)
        out[j] = strata::detail::narrow<T>(row.empty() ? A{0} : from[j] * part);
      if (q_.lse != nullptr) q_.lse[tile_.at(i)] = row.lse();
    }
  }

  query_rows<T> const& q_;
  std::int32_t v_dim_, rows_;
  score_tile<T, View> tile_;
  std::int64_t stride_;
  A* scores_;  // [tile_keys][strip_pairs], of one strip
  tile_state<A> part_, total_;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
