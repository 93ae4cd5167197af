// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which keys the blocks of a row tile see, against the rule, pair by pair and key by key.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/attention/cpu/sight.hpp>

#include "support/exact_numbers.hpp"

namespace {

using namespace strata::cpu::detail;  // what the kernels see

/// Queries of one sequence with one KV head, and where its keys stand.
struct scene {
  std::int32_t group = 1, rows = 0;
  std::vector<std::int32_t> queries, keys;
  strata::query_rows<float> q;

  scene(std::int32_t heads, std::int32_t last, std::uint64_t seed) : group(heads) {
    support::number_stream draw(seed);
    for (std::int32_t position = -3; position < last; position += 1 + draw.below(4)) {
      keys.push_back(position);
      if (draw.below(20) == 0) position += 60;  // a gap as wide as a window
    }
    rows = (tile_rows - draw.below(20)) / heads;
    auto const begin = draw.below(last);
    for (std::int32_t i = 0; i < rows; ++i)
      queries.push_back(seed % 2 == 0 ? begin + i : draw.below(last));  // in order, or in any
    q.positions = queries.data();
    q.rows_per_seq = rows;
    q.num_seqs = 1;
    q.q_heads = heads;
  }
  bool sees(std::int32_t pair, std::int32_t key) const {
    return q.rule.sees(queries[static_cast<std::size_t>(pair / group)],
                       keys[static_cast<std::size_t>(key)]);
  }
};

bool has(extent e, std::int32_t i) { return i >= e.first && e.last > i; }

/// The keys of blocks of pairs are those that one of them sees and what lies between; where windows
/// end, in gaps, there may be more.
void check_blocks(scene const& s, extent const* blocks, std::int32_t pairs, std::int32_t first,
                  std::int32_t count) {
  for (std::int32_t b = 0; pairs > b * multiply_rows; ++b) {
    extent expected{count, 0};
    for (auto i = b * multiply_rows; i < smaller(pairs, (b + 1) * multiply_rows); ++i)
      for (std::int32_t k = 0; k < count; ++k)
        if (s.sees(i, first + k))
          expected = {smaller(expected.first, k), larger(expected.last, k + 1)};
    CHECK(blocks[b].first <= expected.first);
    CHECK(blocks[b].last >= expected.last);
    if (s.q.rule.window < strata::unbounded_window) continue;
    CHECK(blocks[b].first == expected.first);
    CHECK(blocks[b].last == expected.last);
  }
}

template <class T>
void check_tile(scene const& s, seen_keys<T> const& seen, std::int32_t pairs, std::int32_t first,
                std::int32_t count) {
  check_blocks(s, seen.keys(), pairs, first, count);
  extent of_keys[ceil_divide(tile_keys, multiply_rows)];
  seen.pairs(count, of_keys);
  for (std::int32_t k = 0; k < count; k += multiply_rows)
    CHECK(pairs >= of_keys[k / multiply_rows].last);
  bool missed = false;
  for (std::int32_t i = 0; i < pairs; ++i)
    for (std::int32_t k = 0; k < count; ++k) {
      auto const vector = i / lanes<T>::count * lanes<T>::count;
      if (s.sees(i, first + k))
        missed = missed || !has(of_keys[k / multiply_rows], i) ||
                 !has(seen.keys(vector, lanes<T>::count), k);
    }
  CHECK_FALSE(missed);
}

template <class T>
void check_scene(scene const& s) {
  row_tile tile;
  tile.count = s.rows * s.group;
  tile.keys.positions = s.keys.data();
  tile.keys.end = static_cast<std::int32_t>(s.keys.size());
  tile.keys.end_position = s.keys.back() + 1;
  row_sight<T> sight;
  sight.find(s.q, tile, s.group);
  seen_keys<T> seen;
  seen.begin(sight, tile.count);
  for (std::int32_t first = 0; first < tile.keys.end; first += tile_keys - 1) {
    auto const count = smaller(tile_keys, tile.keys.end - first);
    seen.find(tile.keys, first, count);
    check_tile(s, seen, tile.count, first, count);
  }
}

}  // namespace

TEST_CASE("sight: the keys of a block are all that its pairs see, and without a window no more") {
  for (std::int32_t const heads : {1, 3, 8})
    for (std::int32_t const window : {1, 7, 50, 100, strata::unbounded_window})
      for (bool const causal : {true, false})
        for (std::uint64_t seed = 1; seed <= 6; ++seed) {
          CAPTURE(heads);
          CAPTURE(window);
          CAPTURE(causal);
          CAPTURE(seed);
          scene s(heads, 300, seed);
          s.q.rule.window = window;
          s.q.rule.causal = causal;
          check_scene<float>(s);
          check_scene<double>(s);
        }
}
