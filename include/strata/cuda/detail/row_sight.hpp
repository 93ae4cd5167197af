// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which keys a query row sees, and what that means for several rows and several keys at a time:
// tiles that none of the rows sees are skipped, and those that all of them see need no mask.
#pragma once

#include <cstdint>

#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

using strata::detail::larger;
using strata::detail::smaller;

using strata::detail::least_int32;
using strata::detail::most_int32;

/// A query at some position sees the keys at positions above `low` and up to `high`.
struct row_sight {
  std::int32_t low = most_int32, high = least_int32;

  row_sight() = default;
  STRATA_DEVICE row_sight(score_rule const& rule, std::int32_t position)
      : low(static_cast<std::int32_t>(
            larger<std::int64_t>(std::int64_t{position} - rule.window, least_int32))),
        high(rule.causal ? position : most_int32) {}

  STRATA_DEVICE bool sees(std::int32_t position) const {
    return position > low && position <= high;
  }
};

/// What all of some rows see, and what any of them does, as far as bounds tell.
struct sight_bounds {
  std::int32_t lowest = most_int32, low_max = least_int32;
  std::int32_t high_min = most_int32, highest = least_int32;

  STRATA_DEVICE void add(row_sight const& row) {
    lowest = smaller(lowest, row.low), low_max = larger(low_max, row.low);
    high_min = smaller(high_min, row.high), highest = larger(highest, row.high);
  }
  STRATA_DEVICE void join(sight_bounds const& other) {
    lowest = smaller(lowest, other.lowest), low_max = larger(low_max, other.low_max);
    high_min = smaller(high_min, other.high_min), highest = larger(highest, other.highest);
  }
  /// Takes in those of all lanes whose numbers differ in bits `first` to 16 only.
  template <thread_block Block>
  STRATA_DEVICE void join_lanes(Block const& block, std::int32_t first) {
    for (auto mask = first; mask < warp_size; mask *= 2) {
      lowest = smaller(lowest, block.shuffle_xor(lowest, mask));
      low_max = larger(low_max, block.shuffle_xor(low_max, mask));
      high_min = smaller(high_min, block.shuffle_xor(high_min, mask));
      highest = larger(highest, block.shuffle_xor(highest, mask));
    }
  }
  // Of keys whose first and last positions are these.
  STRATA_DEVICE bool all_see(std::int32_t first, std::int32_t last) const {
    return first > low_max && last <= high_min;
  }
  STRATA_DEVICE bool any_sees(std::int32_t first, std::int32_t last) const {
    return last > lowest && first <= highest;
  }
};

/// The two rows of a lane, and all 16.
struct fragment_sight {
  row_sight rows[2];
  sight_bounds bounds;

  fragment_sight() = default;
  template <thread_block Block>
  STRATA_DEVICE fragment_sight(Block const& block, score_rule const& rule,
                               std::int32_t const (&positions)[2]) {
    for (std::int32_t i = 0; i < 2; ++i) {
      rows[i] = row_sight(rule, positions[i]);
      bounds.add(rows[i]);
    }
    bounds.join_lanes(block, 4);
  }
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
