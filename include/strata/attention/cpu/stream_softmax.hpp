// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// From scores to weights in streamed attention: a tile of keys, all pairs of a head.
#pragma once

#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/attention/cpu/state.hpp>
#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Pairs (rows x query heads of a KV head) up to which K and V are streamed.
inline constexpr std::int32_t streamed_pairs = 32;
using stream_sight = row_sight<float, streamed_pairs>;

/// The scores of a head's pairs with a tile of its keys.
class stream_softmax {
 public:
  /// sight: of the pairs; tile_size: keys of a whole tile, in vectors; scores: [pairs][stream_keys].
  stream_softmax(strata::detail::scorer<float> const& rule, stream_sight const& sight,
                 key_range const& keys, std::int32_t tile_size, float* scores) noexcept
      : rule_(rule), sight_(sight), keys_(keys), tile_size_(tile_size), scores_(scores) {}

  /// Turns the scores of all pairs with `count` keys from `first` on into weights against their new
  /// maxima, and says in `kept` what their sums so far are to be multiplied by. scale: what the head
  /// multiplies its scores by. Step by step for all pairs: what crosses the lanes of a vector is a
  /// chain of some 30 cycles, beside which those of other pairs run.
  void weigh(std::int32_t pairs, std::int32_t first, std::int32_t count, float scale,
             tile_state<float> to, float* kept) const noexcept {
    float_vec lane[streamed_pairs];
    float base[streamed_pairs];
    for (std::int32_t p = 0; p < pairs; ++p) lane[p] = finish(p, first, count, scale);
    for (std::int32_t p = 0; p < pairs; ++p) {
      float const before = to.max[p], seen = largest_lane(lane[p]);
      float const max = seen > before ? seen : before;
      base[p] = max == minus_infinity<float> ? 0.0f : max;
      kept[p] = before == max ? 1.0f : exponential_of(before - base[p]);
      to.max[p] = max;
    }
    for (std::int32_t p = 0; p < pairs; ++p) {
      float* const scores = of(p);
      float_vec sum = {};
#pragma GCC unroll 4
      for (std::int32_t t = 0; t < tile_size(); t += lane_count) {
        auto const weight = exponential(float_lanes::load(scores + t) - base[p]);
        float_lanes::store(scores + t, weight);
        sum += weight;
      }
      lane[p] = sum;
    }
    for (std::int32_t p = 0; p < pairs; ++p) to.sum[p] = to.sum[p] * kept[p] + lane_sum(lane[p]);
  }

 private:
  float* of(std::int32_t p) const noexcept { return scores_ + p * stream_keys; }
  /// Where all tiles are whole, a constant: loops of a known length.
  std::int32_t tile_size() const noexcept { return has_half_vectors ? tile_size_ : stream_keys; }

  /// Scales the scores of a pair and masks those that it does not see and those behind the last key.
  /// Returns the greatest of each lane.
  float_vec finish(std::int32_t p, std::int32_t first, std::int32_t count,
                   float scale) const noexcept {
    if (scale != 1) multiply(p, scale);
    for (std::int32_t t = 0; t < count && rule_.softcap > 0; ++t) of(p)[t] = rule_.score(of(p)[t]);
    auto const most = multiply(p, rule_.softcap > 0 ? 1.0f : rule_.scale);
    if (sees_all(p, first, count)) return most;
    mask(p, first, count);
    return multiply(p, 1);
  }
  /// All of a tile by a factor. Returns the greatest of each lane; a NaN is passed by: it shows in
  /// its weight.
  float_vec multiply(std::int32_t p, float factor) const noexcept {
    float* const scores = of(p);
    auto most = float_lanes::all(minus_infinity<float>);
#pragma GCC unroll 4
    for (std::int32_t t = 0; t < tile_size(); t += lane_count) {
      auto const score = in_register(float_lanes::load(scores + t) * factor);
      float_lanes::store(scores + t, score);
      most = score > most ? score : most;
    }
    return most;
  }
  bool sees_all(std::int32_t p, std::int32_t first, std::int32_t count) const noexcept {
    return count == tile_size() && keys_.position(first) > sight_.low[p] &&
           keys_.position(first + count - 1) <= sight_.high[p];
  }
  void mask(std::int32_t p, std::int32_t first, std::int32_t count) const noexcept {
    float* const scores = of(p);
    auto const low = sight_.low[p], high = sight_.high[p];
    for (std::int32_t t = 0; t < count; ++t)
      if (auto const position = keys_.position(first + t); position > high || position <= low)
        scores[t] = minus_infinity<float>;
    for (auto t = count; t < tile_size(); ++t) scores[t] = minus_infinity<float>;
  }

  strata::detail::scorer<float> const& rule_;
  stream_sight const& sight_;
  key_range const& keys_;
  std::int32_t tile_size_;
  float* scores_;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
