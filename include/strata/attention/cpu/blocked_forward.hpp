// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// blocked_attention forward: one row tile against its keys, online softmax by tiles and splits.
#pragma once

#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
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
    return score_tile<T, View>::size(view) +
           2 * tile_state<A>::size(rows, stride_of<A>(view.v_dim));
  }

  /// A tile from queries to output.
  void run(row_tile const& tile) noexcept {
    tile_.begin(tile);
    start_total();
    for (auto s = tile.first_split(); s < tile.last_split(); ++s) {
      read_split(s, part_);
      merge(part_);
    }
    write_output();
  }

  /// One split of a tile, left in `to`.
  void run_split(row_tile const& tile, std::int32_t split, tile_state<A> to) noexcept {
    tile_.begin(tile);
    read_split(split, to);
  }

  /// The output of a tile whose splits lie in `parts`, `distance` elements from one to the next.
  void combine(row_tile const& tile, A* parts, std::int64_t distance) noexcept {
    tile_.point(tile);
    start_total();
    for (auto s = tile.first_split(); s < tile.last_split(); ++s, parts += distance)
      merge(tile_state<A>(parts));
    write_output();
  }

 private:
  using v = lanes<A>;
  using vec = typename v::vec;

  forward_pass(query_rows<T> const& q, View const& view, std::int32_t rows,
               arena<A> memory) noexcept
      : q_(q),
        v_dim_(view.v_dim),
        tile_(q, view, memory),
        stride_(tile_.v_stride()),
        part_(memory.take(tile_state<A>::size(rows, stride_))),
        total_(memory.take(tile_state<A>::size(rows, stride_))) {}

  void read_split(std::int32_t split, tile_state<A> to) noexcept {
    auto const& tile = tile_.tile();
    to.clear(tile.count, stride_);
    auto const begin = tile.keys.begin + split * split_keys;
    auto const end = smaller(std::int64_t{begin} + split_keys, std::int64_t{tile.last_key});
    for (std::int64_t t = begin; t < end; t += tile_keys) {
      auto const first = larger<std::int64_t>(t, tile.first_key);
      auto const last = smaller<std::int64_t>(t + tile_keys, end);
      if (first < last)
        read_keys(static_cast<std::int32_t>(first), static_cast<std::int32_t>(last - first), to);
    }
  }

  void read_keys(std::int32_t first, std::int32_t count, tile_state<A> to) noexcept {
    tile_.load(first, count);
    tile_.score(first, count);
    weigh(count, to);
    auto const rows = tile_.tile().count;
    matrix<A> const weights{tile_.scores(), 1, tile_rows};
    if (tile_.values_finite(count))
      multiply_parts(rows, v_dim_, tile_.seen().keys(), weights, tile_.values(), stride_, to.values,
                     stride_, true);
    else
      multiply_nonzero(rows, v_dim_, count, weights, tile_.values(), stride_, to.values, stride_,
                       true);
  }

  /// Turns scores into weights against the new maximum; the state so far follows it.
  void weigh(std::int32_t count, tile_state<A> to) noexcept {
    A kept[tile_rows];
    A const scale = tile_.scale();
    for (std::int32_t j = 0; j < tile_.columns(); j += v::count) {
      A* const scores = tile_.scores() + j;  // [count][tile_rows]
      auto const keys = tile_.seen().keys(j, v::count);
      vec const old = v::load(to.max + j);
      vec max = v::all(minus_infinity<A>);
      for (auto i = keys.first; i < keys.last; ++i) {
        vec const score = v::load(scores + i * tile_rows);
        max = score > max ? score : max;  // passes a NaN by: it shows in its weight
      }
      max = in_register(max * scale);  // the largest product makes the largest score
      max = old > max ? old : max;
      vec const base = max == minus_infinity<A> ? v::all(0) : max;
      vec const keep = exponential(old - base);
      vec sum = v::load(to.sum + j) * keep;
      tile_.clear_unseen(tile_.scores(), j, count);
      for (auto i = keys.first; i < keys.last; ++i) {
        vec const weight = exponential(in_register(v::load(scores + i * tile_rows) * scale) - base);
        v::store(scores + i * tile_rows, weight);
        sum += weight;
      }
      v::store(to.max + j, max);
      v::store(to.sum + j, sum);
      v::store(kept + j, keep);
    }
    for (std::int32_t i = 0; i < tile_.tile().count; ++i)
      rescale(to.values + i * stride_, kept[i], v_dim_);
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

  void write_output() noexcept {
    for (std::int32_t i = 0; i < tile_.tile().count; ++i) {
      softmax_state<A> const row{total_.max[i], total_.sum[i]};
      A const* STRATA_RESTRICT const from = total_.values + i * stride_;
      T* STRATA_RESTRICT const out = q_.out + tile_.at(i) * v_dim_;
      A const part = row.empty() ? A{0} : 1 / row.sum;
      for (std::int32_t j = 0; j < v_dim_; ++j)
        out[j] = strata::detail::narrow<T>(row.empty() ? A{0} : from[j] * part);
      if (q_.lse != nullptr) q_.lse[tile_.at(i)] = row.lse();
    }
  }

  query_rows<T> const& q_;
  std::int32_t v_dim_;
  score_tile<T, View> tile_;
  std::int64_t stride_;
  tile_state<A> part_, total_;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
