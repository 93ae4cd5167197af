// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// blocked_attention forward: one row tile against its keys, online softmax by tiles and splits.
#pragma once

#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/tile.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// The softmax of a row tile over some keys, in a workspace.
template <class T>
struct tile_state {
  T* max;     // [tile_rows]
  T* sum;     // [tile_rows], of exp(score - max)
  T* values;  // [rows][stride], sums of V not yet divided by `sum`

  explicit tile_state(T* data) noexcept {
    max = data;
    sum = data + tile_rows;
    values = data + 2 * tile_rows;
  }

  static std::int64_t size(std::int32_t rows, std::int64_t stride) noexcept {
    return 2 * tile_rows + rows * stride;
  }
  void clear(std::int32_t rows, std::int64_t stride) const noexcept {
    for (std::int32_t i = 0; i < tile_rows; ++i) max[i] = minus_infinity<T>, sum[i] = 0;
    for (std::int64_t i = 0; i < rows * stride; ++i) values[i] = 0;
  }
};

/// row *= factor; factor 0 clears whatever stood there.
template <class T>
void rescale(T* row, T factor, std::int32_t count) noexcept {
  using v = lanes<T>;
  if (factor == 1) return;
  for (std::int32_t i = 0; i < count; i += v::count)
    v::store(row + i, factor == 0 ? v::all(0) : v::load(row + i) * factor);
}

template <class T, class View>
class forward_pass {
 public:
  /// rows: the most that a tile of the call has.
  forward_pass(query_rows<T> const& q, View const& view, std::int32_t rows, T* scratch) noexcept
      : forward_pass(q, view, rows, arena<T>(scratch)) {}

  /// Elements of scratch.
  static std::int64_t size(View const& view, std::int32_t rows) noexcept {
    return score_tile<T, View>::size(view) +
           2 * tile_state<T>::size(rows, stride_of<T>(view.v_dim));
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
  void run_split(row_tile const& tile, std::int32_t split, tile_state<T> to) noexcept {
    tile_.begin(tile);
    read_split(split, to);
  }

  /// The output of a tile whose splits lie in `parts`, `distance` elements from one to the next.
  void combine(row_tile const& tile, T* parts, std::int64_t distance) noexcept {
    tile_.point(tile);
    start_total();
    for (auto s = tile.first_split(); s < tile.last_split(); ++s, parts += distance)
      merge(tile_state<T>(parts));
    write_output();
  }

 private:
  using v = lanes<T>;
  using vec = typename v::vec;

  forward_pass(query_rows<T> const& q, View const& view, std::int32_t rows,
               arena<T> memory) noexcept
      : q_(q),
        v_dim_(view.v_dim),
        tile_(q, view, memory),
        stride_(tile_.v_stride()),
        part_(memory.take(tile_state<T>::size(rows, stride_))),
        total_(memory.take(tile_state<T>::size(rows, stride_))) {}

  void read_split(std::int32_t split, tile_state<T> to) noexcept {
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

  void read_keys(std::int32_t first, std::int32_t count, tile_state<T> to) noexcept {
    tile_.load(first, count);
    tile_.score(first, count);
    weigh(count, to);
    auto const product = tile_.values_finite(count) ? multiply<T> : multiply_nonzero<T>;
    product(tile_.tile().count, v_dim_, count, {tile_.scores(), 1, tile_rows}, tile_.values(),
            stride_, to.values, stride_, true);
  }

  /// Turns scores into weights against the new maximum; the state so far follows it.
  void weigh(std::int32_t count, tile_state<T> to) noexcept {
    T kept[tile_rows];
    for (std::int32_t j = 0; j < tile_.columns(); j += v::count) {
      T* const scores = tile_.scores() + j;  // [count][tile_rows]
      vec const old = v::load(to.max + j);
      vec max = old;
      for (std::int32_t i = 0; i < count; ++i) {
        vec const score = v::load(scores + i * tile_rows);
        max = score > max ? score : max;  // passes a NaN by: it shows in its weight
      }
      vec const base = max == minus_infinity<T> ? v::all(0) : max;
      vec const keep = exponential(old - base);
      vec sum = v::load(to.sum + j) * keep;
      for (std::int32_t i = 0; i < count; ++i) {
        vec const weight = exponential(v::load(scores + i * tile_rows) - base);
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
    if (q_.rule.sink_logits == nullptr || q_.key_begin != 0) return;
    for (std::int32_t i = 0; i < count; ++i) {
      auto const logit = static_cast<T>(q_.rule.sink_logits[tile_.head(i)]);
      total_.max[i] = logit;
      total_.sum[i] = logit == minus_infinity<T> ? T{0} : T{1};
    }
  }

  void merge(tile_state<T> part) noexcept {
    for (std::int32_t i = 0; i < tile_.tile().count; ++i) {
      T const max = part.max[i] > total_.max[i] ? part.max[i] : total_.max[i];
      T const base = max == minus_infinity<T> ? T{0} : max;
      T const kept = exponential_of(total_.max[i] - base);
      T const added = exponential_of(part.max[i] - base);
      T* const to = total_.values + i * stride_;
      T const* const from = part.values + i * stride_;
      rescale(to, kept, v_dim_);
      for (std::int32_t j = 0; j < v_dim_ && added != 0; j += v::count)
        v::store(to + j, v::load(to + j) + v::load(from + j) * added);
      total_.max[i] = max;
      total_.sum[i] = total_.sum[i] * kept + part.sum[i] * added;
    }
  }

  void write_output() noexcept {
    for (std::int32_t i = 0; i < tile_.tile().count; ++i) {
      softmax_state<T> const row{total_.max[i], total_.sum[i]};
      T const* STRATA_RESTRICT const from = total_.values + i * stride_;
      T* STRATA_RESTRICT const out = q_.out + tile_.at(i) * v_dim_;
      for (std::int32_t j = 0; j < v_dim_; ++j) out[j] = row.empty() ? T{0} : from[j] / row.sum;
      if (q_.lse != nullptr) q_.lse[tile_.at(i)] = row.lse();
    }
  }

  query_rows<T> const& q_;
  std::int32_t v_dim_;
  score_tile<T, View> tile_;
  std::int64_t stride_;
  tile_state<T> part_, total_;
};

/// How a forward call is cut, the same for every share: every tile is one piece, but a tile heavier
/// than a quarter of a share's fair part is as many as it has splits. There are fewer than
/// 4 x num_shares such tiles, which bounds the memory for their states.
template <class T, class View>
class forward_cut {
 public:
  forward_cut(query_rows<T> const& q, View const& view, std::int32_t num_shares) noexcept
      : pieces_(std::int64_t{4} * num_shares) {
    std::int64_t rows = 0;
    for (std::int32_t seq = 0; seq < q.num_seqs; ++seq) {
      rows = larger<std::int64_t>(rows, q.row_end(seq) - q.row_begin(seq));
      for (std::int32_t head = 0; head < view.kv_heads; ++head) {
        auto const keys = strata::detail::keys_of(q, view, seq, head);
        splits_ = larger<std::int64_t>(splits_, ceil_divide(keys.end - keys.begin, split_keys));
      }
    }
    rows *= q.q_heads / larger(view.kv_heads, 1);  // a bad view is refused later
    rows_ = static_cast<std::int32_t>(smaller<std::int64_t>(tile_rows, rows));
    splits_tiles_ = num_shares > 1 && splits_ > 1;
    state_size_ =
        ceil_divide<std::int64_t>(tile_state<T>::size(rows_, stride_of<T>(view.v_dim)), 16) * 16;
    share_size_ = ceil_divide<std::int64_t>(forward_pass<T, View>::size(view, rows_), 16) * 16;
  }

  std::int32_t rows() const noexcept { return rows_; }  // the most that a tile has
  // In elements.
  std::int64_t share_size() const noexcept { return share_size_; }
  std::int64_t state_size() const noexcept { return state_size_; }
  std::int64_t tile_size() const noexcept { return splits_ * state_size_; }  // of a split tile
  std::int64_t size(std::int32_t num_shares) const noexcept {
    return share_size_ * num_shares + (splits_tiles_ ? pieces_ * tile_size() : 0);
  }

  bool is_split(row_tile const& tile, std::int64_t total_cost) const noexcept {
    return splits_tiles_ && tile.last_split() - tile.first_split() > 1 &&
           tile.cost() * pieces_ > total_cost;
  }
  bool splits_tiles() const noexcept { return splits_tiles_; }

 private:
  std::int64_t pieces_, splits_ = 0, state_size_ = 0, share_size_ = 0;
  std::int32_t rows_ = 0;
  bool splits_tiles_ = false;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
