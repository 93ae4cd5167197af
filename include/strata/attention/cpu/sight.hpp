// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Row tiles of the CPU kernels, and which keys their rows see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/products.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

using strata::detail::first_after;
using strata::detail::key_range;

// Rows of a tile: the more, the less often a key is decoded. 48 are 0.95 of the speed of 96 in forward
// and 0.92 in backward; on a Zen 4 144 gain nothing. An Emerald Rapids has 2 MB of level 2 for what
// grows with the rows, and reads level 3 slowly: of the time of 96, over 2048 tokens (one thread, 32
// query heads on 8 KV heads of 128),
//
//                      192    288    384    576    768    960
//   forward, float     0.92   0.88   0.87   0.86   0.85   0.86
//   forward, bf16             0.93   0.92   0.92   0.91   0.92
//   backward, float    0.91   0.88   0.88   0.90   0.92
inline constexpr std::int32_t least_rows = 96;
inline constexpr std::int32_t tile_rows = has_half_vectors ? 6 * least_rows : least_rows;
inline constexpr std::int32_t backward_rows = has_half_vectors ? 3 * least_rows : least_rows;
inline constexpr std::int32_t tile_keys = 64;
/// Keys whose softmax is kept apart before it is merged: what decode spreads over shares. K and V
/// of a split at head_dim 128 are 256 KB of 16-bit numbers, some 20 us of reading, against less
/// than 1 us for merging it.
inline constexpr std::int32_t split_keys = 512;

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

/// What the pairs of a tile see together: pair i sees the keys at positions above low(i) and up to
/// high(i).
struct sight_bounds {
  static constexpr std::int32_t least = (std::numeric_limits<std::int32_t>::min)();
  static constexpr std::int32_t most = (std::numeric_limits<std::int32_t>::max)();

  std::int32_t lowest = most, low_max = least;    // of all low(i)
  std::int32_t high_min = most, highest = least;  // of all high(i)

  sight_bounds() noexcept = default;
  template <class Q>
  sight_bounds(query_rows<Q> const& q, row_tile const& tile, std::int32_t group) noexcept
      : sight_bounds(q, tile, group, [](auto...) {}) {}

  /// Calls body(pair, low, high) for each.
  template <class Q, class Body>
  sight_bounds(query_rows<Q> const& q, row_tile const& tile, std::int32_t group,
               Body&& body) noexcept {
    auto row = q.row_begin(tile.seq) + static_cast<std::int32_t>(tile.first / group);
    auto head = static_cast<std::int32_t>(tile.first % group);
    for (std::int32_t i = 0; i < tile.count; ++row, head = 0) {
      auto const position = q.position(tile.seq, row, tile.keys.end_position);
      auto const before_window = std::int64_t{position} - q.rule.window;
      auto const low = static_cast<std::int32_t>(larger<std::int64_t>(before_window, least));
      auto const high = q.rule.causal ? position : most;
      lowest = smaller(lowest, low), low_max = larger(low_max, low);
      high_min = smaller(high_min, high), highest = larger(highest, high);
      for (; head < group && i < tile.count; ++head, ++i) body(i, low, high);
    }
  }
};

/// The same of each pair. Pairs: the most that a tile has.
template <class T, std::int32_t Pairs = tile_rows>
struct row_sight {
  using integer = typename lanes<T>::integer;

  integer low[static_cast<std::size_t>(Pairs)] = {}, high[static_cast<std::size_t>(Pairs)] = {};
  sight_bounds all;

  /// Takes up a tile.
  template <class Q>
  void find(query_rows<Q> const& q, row_tile const& tile, std::int32_t group) noexcept {
    all = sight_bounds(q, tile, group, [this](auto i, auto lowest, auto highest) {
      low[i] = lowest;
      high[i] = highest;
    });
  }
};

/// What the pairs of a row tile see of a key tile, in blocks of multiply_rows pairs: the keys above
/// the lowest `low` of a block and up to its highest `high`. Nothing outside is computed, which is
/// 1.2 to 1.3 times as fast as all of a tile at 128 tokens with one query head per KV head, 1.1 times
/// at 512, and 1.01 to 1.04 times at 512 tokens with four query heads (tiles of 96 pairs).
template <class T>
class seen_keys {
 public:
  /// Takes up a tile.
  void begin(row_sight<T> const& sight, std::int32_t pairs) noexcept {
    pairs_ = pairs;
    blocks_ = ceil_divide(padded<T>(pairs), multiply_rows);
    for (std::int32_t b = 0; b < padded<T>(blocks_); ++b) {
      low_[b] = sight_bounds::most, high_[b] = sight_bounds::least;
      for (auto i = b * multiply_rows; i < smaller((b + 1) * multiply_rows, pairs); ++i) {
        low_[b] = smaller(low_[b], sight.low[i]);
        high_[b] = larger(high_[b], sight.high[i]);
      }
    }
  }

  /// Takes up keys: `count` from `first` on.
  void find(key_range const& keys, std::int32_t first, std::int32_t count) noexcept {
    for (std::int32_t b = 0; b < blocks_; b += v::count) {
      typename v::mask before = {}, until = {};  // minus the keys not above low, and up to high
      for (std::int32_t i = 0; i < count; ++i) {
        auto const position = keys.position(first + i);
        before += v::load(low_ + b) >= position;
        until += v::load(high_ + b) >= position;
      }
      for (std::int32_t j = 0; j < v::count; ++j) {
        extent const seen{static_cast<std::int32_t>(-before[j]),
                          static_cast<std::int32_t>(-until[j])};
        if (b + j < blocks_) seen_[b + j] = seen.last > seen.first ? seen : extent{count, 0};
      }
    }
  }
  /// The same where every pair sees all keys.
  void all(std::int32_t count) noexcept {
    for (std::int32_t b = 0; b < blocks_; ++b) seen_[b] = {0, count};
  }

  /// Of the pairs from `first` on, which are no more than the tile's in whole vectors.
  extent keys(std::int32_t first, std::int32_t count) const noexcept {
    extent all = seen_[first / multiply_rows];
    for (auto b = first / multiply_rows + 1; b <= (first + count - 1) / multiply_rows; ++b)
      all = {smaller(all.first, seen_[b].first), larger(all.last, seen_[b].last)};
    return {all.first, larger(all.first, all.last)};
  }
  /// Of every block of pairs.
  extent const* keys() const noexcept { return seen_; }

  /// For every multiply_rows of `count` keys the first and the last pair that may see one of them.
  void pairs(std::int32_t count, extent* to) const noexcept {
    for (std::int32_t k = 0; k < count; k += multiply_rows, ++to) {
      *to = {pairs_, 0};
      for (std::int32_t b = 0; b * multiply_rows < pairs_; ++b)
        if (k + multiply_rows > seen_[b].first && seen_[b].last > k)
          *to = {smaller(to->first, b * multiply_rows), smaller(pairs_, (b + 1) * multiply_rows)};
      to->last = larger(to->first, to->last);
    }
  }

 private:
  using v = lanes<T>;
  using integer = typename v::integer;
  static constexpr std::int32_t most_blocks = tile_rows / multiply_rows;
  static_assert(tile_rows % multiply_rows == 0);

  integer low_[padded<T>(most_blocks)] = {},
          high_[padded<T>(most_blocks)] = {};  // of any pair of a block
  extent seen_[most_blocks];
  std::int32_t pairs_ = 0, blocks_ = 0;  // blocks of the pairs, in whole vectors
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
