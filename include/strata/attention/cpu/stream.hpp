// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention of a few query rows over a long cache: decode and draft tokens. K and V are read once,
// where they lie, for all query heads of their KV head and all rows of the sequence.
//
// Tiles of 64 tokens, or 32, are taken up head by head, so that a token whose heads lie side by side
// is read while its page is open, and so that what comes next can be asked for a tile ahead.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

#include <strata/attention/cpu/arena.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/rotation.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/attention/cpu/state.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/attention/cpu/stream_queries.hpp>
#include <strata/attention/cpu/stream_scores.hpp>
#include <strata/attention/cpu/stream_side.hpp>
#include <strata/attention/cpu/stream_softmax.hpp>
#include <strata/attention/cpu/stream_spread.hpp>
#include <strata/attention/cpu/stream_values.hpp>
#include <strata/attention/cpu/tile.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Bytes of a tile of all heads that are taken up together: this tile and the next share a level-2
/// cache with queries and sums. That of a Zen 4 has 1 MB, that of a Sapphire Rapids 2 MB.
inline constexpr std::int64_t streamed_bytes = (has_half_vectors ? 512 : 256) << 10;

/// A few rows of queries over keys, the heads of a sequence side by side.
template <class T, class View>
class stream_pass {
  static_assert(std::same_as<accum_t<T>, float>);

 public:
  /// pairs: the most that a sequence of the call has.
  stream_pass(query_rows<T> const& q, View const& view, std::int32_t pairs, float* scratch) noexcept
      : stream_pass(q, view, pairs, arena<float>(scratch)) {}

  /// KV heads that are taken up together, at most streamed_heads.
  static std::int32_t heads_together(View const& view) noexcept {
    auto const tile = tile_size(view) * token_bytes(view);
    auto const heads = larger<std::int64_t>(streamed_bytes / tile, 1);
    return static_cast<std::int32_t>(
        smaller<std::int64_t>(heads, smaller(view.kv_heads, streamed_heads)));
  }
  /// Keys of a tile: fewer where a token is long. More heads are taken up together then, and memory is
  /// read in longer pieces; or the tile is half of what level 2 holds two of. Emerald Rapids, one
  /// thread: 32 KV heads of 128 in f16 take 0.90 of the time, q8_0 0.87, f32 0.93; 16 heads in f16
  /// 0.97, 8 in f32 0.95; but 8 and 4 in f16 would take 1.0 and 1.06.
  static std::int32_t tile_size(View const& view) noexcept {
    return has_half_vectors && view.kv_heads > 1 && view.kv_heads * token_bytes(view) > 4096
               ? stream_keys / 2
               : stream_keys;
  }
  /// Elements of a head's state over a split.
  static std::int64_t state_size(View const& view, std::int32_t pairs) noexcept {
    return tile_state<float>::size(pairs, slots_of<v_reader>(view.v_dim));
  }
  /// Elements of scratch.
  static std::int64_t size(View const& view, std::int32_t pairs) noexcept {
    auto const heads = heads_together(view);
    return heads * 2 * state_size(view, pairs) + queries::size(view.k_dim, heads, pairs) +
           pairs * stream_keys + copy_size(view, pairs) + k_side::size(view.k_dim) +
           v_side::size(view.v_dim);
  }

  /// A sequence from queries to output.
  void run(std::int32_t seq) noexcept {
    for (std::int32_t head = 0; head < view_.kv_heads; head += heads_together_) {
      begin(seq, head, smaller(head + heads_together_, view_.kv_heads));
      for (std::int32_t h = 0; h < heads_; ++h) start(h);
      for (auto split = first_split(); split < last_split(); ++split) {
        read_split(split, parts_);
        for (std::int32_t h = 0; h < heads_; ++h)
          if (reads(h, split)) merge(total(h), state(parts_, h), pairs_, v_slots_, v_slots_);
      }
      for (std::int32_t h = 0; h < heads_; ++h) write_output(h);
    }
  }

  /// One split of the heads [first, last), left in `states`, one for each head.
  void run_split(std::int32_t seq, std::int32_t first, std::int32_t last, std::int32_t split,
                 float* states) noexcept {
    begin(seq, first, last);
    read_split(split, states);
  }

  /// The output of a head whose splits lie in `parts`, `distance` elements from one to the next.
  /// The first of them is that of split `first`.
  void combine(std::int32_t seq, std::int32_t head, std::int32_t first, float* parts,
               std::int64_t distance) noexcept {
    point(seq, head, head + 1);
    start(0);
    for (auto split = first_split(); split < last_split(); ++split)
      merge(total(0), state(parts + (split - first) * distance, 0), pairs_, v_slots_, v_slots_);
    write_output(0);
  }

 private:
  using k_side = stream_side<typename stored_as<typename View::k_codec>::codec>;
  using v_side = stream_side<typename View::v_codec>;
  using k_reader = typename k_side::reader;
  using v_reader = typename v_side::reader;
  using queries = stream_queries<T, typename View::k_codec, k_reader>;

  stream_pass(query_rows<T> const& q, View const& view, std::int32_t pairs,
              arena<float> memory) noexcept
      : q_(q),
        view_(view),
        rule_(q.rule, view.k_dim),
        group_(q.q_heads / view.kv_heads),
        heads_together_(heads_together(view)),
        tile_size_(tile_size(view)),
        v_slots_(slots_of<v_reader>(view.v_dim)),
        most_pairs_(pairs),
        state_size_(state_size(view, pairs)),
        parts_(memory.take(heads_together_ * state_size_)),
        totals_(memory.take(heads_together_ * state_size_)),
        queries_(view.k_dim, rule_.scale, heads_together_, pairs, memory),
        scores_(memory.take(pairs * stream_keys)),
        copy_(memory.take(copy_size(view, pairs))),
        k_(view.k, view.k_dim, tile_size_, memory),
        v_(view.v, view.v_dim, tile_size_, memory) {}

  /// Of K and V of a head.
  static std::int64_t token_bytes(View const& view) noexcept {
    return View::k_codec::row_bytes(view.k_dim) + View::v_codec::row_bytes(view.v_dim);
  }
  static std::int64_t copy_size(View const& view, std::int32_t pairs) noexcept {
    return spreads(pairs) ? std::int64_t{spread_keys} * slots_of<k_reader>(view.k_dim) : 0;
  }
  void point(std::int32_t seq, std::int32_t first, std::int32_t last) noexcept {
    heads_ = last - first;
    k_.take_up(first, heads_);
    v_.take_up(first, heads_);
    for (std::int32_t h = 0; h < heads_; ++h) {
      for_each_tile(q_, view_, seq, first + h, streamed_pairs,
                    [&](row_tile const& tile) { tiles_[h] = tile; });
      pairs_ = tiles_[h].count;
      find_scales(h);
    }
  }
  /// Those that belong to head h as a whole: they wait for its scores and its output.
  void find_scales(std::int32_t h) noexcept {
    auto const& tile = tiles_[h];
    k_scales_[h] = v_scales_[h] = 1;
    if (tile.first_key == tile.last_key) return;  // there may be no blocks
    auto const row = [&](tensor_blocks const& blocks) {
      return blocks.row(tile.seq, tile.kv_head, view_.kv_heads);
    };
    k_scales_[h] = k_.head_scale(row(view_.k), tile.kv_head, tile.first_key);
    v_scales_[h] = v_.head_scale(row(view_.v), tile.kv_head, tile.first_key);
  }
  void begin(std::int32_t seq, std::int32_t first, std::int32_t last) noexcept {
    point(seq, first, last);
    for (std::int32_t h = 0; h < heads_; ++h) {
      sights_[h].find(q_, tiles_[h], group_);
      queries_.load(h, pairs_, [&](std::int32_t p) { return q_.q + at(h, p) * view_.k_dim; });
    }
  }

  std::int32_t first_split() const noexcept {
    auto first = tiles_[0].first_split();
    for (std::int32_t h = 1; h < heads_; ++h) first = smaller(first, tiles_[h].first_split());
    return first;
  }
  std::int32_t last_split() const noexcept {
    auto last = tiles_[0].last_split();
    for (std::int32_t h = 1; h < heads_; ++h) last = larger(last, tiles_[h].last_split());
    return last;
  }
  bool reads(std::int32_t h, std::int32_t split) const noexcept {
    return split >= tiles_[h].first_split() && split < tiles_[h].last_split();
  }

  /// Tile by tile, and in each head by head. Where a sum is not finite in the end, something may
  /// have been multiplied by a weight of zero that must not count: that head again, with care.
  void read_split(std::int32_t split, float* states) noexcept {
    for (std::int32_t h = 0; h < heads_; ++h) state(states, h).clear(pairs_, v_slots_);
    for (std::int32_t t = 0; t < split_keys; t += tile_size_)
      for (std::int32_t h = 0; h < heads_; ++h) read_tile(h, split, t, state(states, h), false);
    for (std::int32_t h = 0; h < heads_; ++h) {
      auto const sums = state(states, h);
      if (all_finite(sums.values, pairs_ * v_slots_)) continue;
      sums.clear(pairs_, v_slots_);
      for (std::int32_t t = 0; t < split_keys; t += tile_size_) read_tile(h, split, t, sums, true);
    }
  }
  void read_tile(std::int32_t h, std::int32_t split, std::int32_t offset, tile_state<float> to,
                 bool careful) noexcept {
    auto const& tile = tiles_[h];
    auto const begin = std::int64_t{tile.keys.begin} + std::int64_t{split} * split_keys + offset;
    auto const first = larger<std::int64_t>(begin, tile.first_key);
    auto const last = smaller<std::int64_t>(begin + tile_size_, tile.last_key);
    if (first < last)
      read_keys(h, static_cast<std::int32_t>(first), static_cast<std::int32_t>(last - first), to,
                careful);
  }

  void read_keys(std::int32_t h, std::int32_t first, std::int32_t count, tile_state<float> to,
                 bool careful) noexcept {
    auto const& tile = tiles_[h];
    auto const k_row = view_.k.row(tile.seq, tile.kv_head, view_.kv_heads);
    auto const v_row = view_.v.row(tile.seq, tile.kv_head, view_.kv_heads);
    auto const passes = ceil_divide(pairs_, stream_pairs);
    auto const keys = k_.rows(k_row, tile.kv_head, first, count, tile.last_key);
    score(h, keys, count);
    float kept[streamed_pairs];
    stream_softmax const softmax(rule_, sights_[h], tile.keys, tile_size_, scores_);
    softmax.weigh(pairs_, first, count, k_scales_[h], to, kept);
    auto const values = v_.rows(v_row, tile.kv_head, first, count, tile.last_key);
    auto next_values = v_.ask(passes);
    for (std::int32_t p = 0; p < pairs_ && careful; ++p)
      add_nonzero<v_reader>(values, count, scores_ + p * stream_keys, kept[p],
                            to.values + p * v_slots_);
    for (std::int32_t p = 0; p < pairs_ && !careful; p += stream_pairs)
      with_pairs(smaller(pairs_ - p, stream_pairs), [&](auto pairs) {
        weigh_pairs<pairs(), v_reader>(values, next_values, count, scores_ + p * stream_keys,
                                       kept + p, to.values + p * v_slots_, v_slots_);
      });
  }

  void score(std::int32_t h, stream_rows const& keys, std::int32_t count) noexcept {
    queries_.read(h, [&](auto reader, float const* q, std::int64_t distance) {
      using reads = decltype(reader);
      if constexpr (can_spread && std::same_as<reads, k_reader>)
        if (spreads(pairs_)) {
          auto next = k_.ask(1);
          score_spread_tile<reads>(keys, next, count, pairs_, q, distance, copy_, scores_);
          return;
        }
      auto next = k_.ask(ceil_divide(pairs_, stream_pairs));
      for (std::int32_t p = 0; p < pairs_; p += stream_pairs)
        with_pairs(smaller(pairs_ - p, stream_pairs), [&](auto pairs) {
          score_pairs<pairs(), reads>(keys, next, count, q + p * distance, distance,
                                      scores_ + p * stream_keys);
        });
    });
  }

  /// The state before any key.
  void start(std::int32_t h) noexcept {
    total(h).clear(pairs_, v_slots_);
    for (std::int32_t p = 0; p < pairs_; ++p) start_row(total(h), p, q_.sink(head(h, p)));
  }

  void write_output(std::int32_t h) noexcept {
    for (std::int32_t p = 0; p < pairs_; ++p) {
      softmax_state<float> const row{total(h).max[p], total(h).sum[p]};
      float const* const from = total(h).values + p * v_slots_;
      T* const out = q_.out + at(h, p) * view_.v_dim;
      float const part = row.empty() ? 0.0f : 1 / row.sum;
      for (std::int32_t s = 0; s < v_slots_; ++s)
        if (auto const i = element_of<v_reader>(s); i < view_.v_dim) {
          float x = row.empty() ? 0.0f : from[s] * part;
          if constexpr (v_side::scaled_by_head) x = x * v_reader::unit * v_scales_[h];
          out[i] = strata::detail::narrow<T>(x);
        }
      if (q_.lse != nullptr) q_.lse[at(h, p)] = row.lse();
    }
  }

  /// Index of a pair among all [rows, q_heads], and its query head.
  std::int64_t at(std::int32_t h, std::int32_t p) const noexcept {
    return (std::int64_t{q_.row_begin(tiles_[h].seq)} + p / group_) * q_.q_heads + head(h, p);
  }
  std::int64_t head(std::int32_t h, std::int32_t p) const noexcept {
    return std::int64_t{tiles_[h].kv_head} * group_ + p % group_;
  }
  tile_state<float> total(std::int32_t h) const noexcept { return state(totals_, h); }
  tile_state<float> state(float* states, std::int32_t h) const noexcept {
    return {states + h * state_size_, most_pairs_};
  }

  query_rows<T> const& q_;
  View const& view_;
  strata::detail::scorer<float> rule_;
  std::int32_t group_, heads_together_, tile_size_, v_slots_;
  std::int32_t most_pairs_;
  std::int64_t state_size_;
  float *parts_, *totals_;  // [heads_together][state_size]
  queries queries_;
  float* scores_;  // [pairs][stream_keys], of which tile_size_ are used
  float* copy_;    // of K, where queries are spread: spread_keys * slots
  k_side k_;
  v_side v_;
  // Of the heads taken up.
  std::int32_t heads_ = 0, pairs_ = 0;
  row_tile tiles_[streamed_heads];
  stream_sight sights_[streamed_heads];
  float k_scales_[streamed_heads] = {}, v_scales_[streamed_heads] = {};
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
