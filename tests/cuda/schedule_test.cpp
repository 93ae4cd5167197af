// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How units of keys are spread over the blocks of a launch, against lists written out.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cuda/detail/schedule.hpp>

#include "support/attention_cases.hpp"
#include "support/simt.hpp"

namespace {

using namespace strata::cuda::detail;
using view_type = strata::kv_view<strata::f32_codec>;

struct scheduled_batch {
  std::vector<std::int32_t> lengths, rows;
  std::int32_t q_heads = 4, kv_heads = 2;
  strata::score_rule rule = {};
  std::int64_t key_begin = 0, key_end = strata::all_keys;
};

struct planned {
  std::vector<std::vector<piece>> of_block;  // [blocks]
  std::vector<row_block> row_blocks;
};

struct scheduled_call {
  std::vector<std::int32_t> offsets{0};
  strata::query_rows<float> q;
  view_type view;

  explicit scheduled_call(scheduled_batch const& b) {
    for (auto const r : b.rows) offsets.push_back(offsets.back() + r);
    q.offsets = offsets.data();
    q.num_seqs = view.rows.num_seqs = static_cast<std::int32_t>(b.lengths.size());
    q.q_heads = b.q_heads;
    q.rule = b.rule;
    q.key_begin = b.key_begin;
    q.key_end = b.key_end;
    view.rows.lengths = b.lengths.data();
    view.kv_heads = b.kv_heads;
    view.k_dim = view.v_dim = 8;
  }
};

planned pieces_of(scheduled_batch const& b, split_rule const& rule,
                  std::int32_t combining_blocks = 3) {
  constexpr std::int32_t threads = 64;
  scheduled_call const c(b);
  planned all;
  all.of_block.resize(support::as_size(rule.parts));
  auto const shared = schedule_bytes(threads);
  simt::launch({rule.parts, threads, shared}, [&](simt::block const& block) {
    schedule line(block, c.q, c.view, rule, threads, block.memory());
    line.for_each_piece([&](piece const& p) {
      if (block.thread() == 0) all.of_block[support::as_size(block.index())].push_back(p);
    });
  });
  simt::launch({combining_blocks, threads, shared}, [&](simt::block const& block) {
    schedule line(block, c.q, c.view, rule, threads, block.memory());
    line.for_each_row_block([&](row_block const& r) {
      if (block.thread() == 0) all.row_blocks.push_back(r);
    });
  });
  return all;
}

using row_block_name = std::tuple<std::int32_t, std::int32_t, std::int32_t>;

/// Units of each row block, from the definition: every key of a row block that a row may see, in
/// pieces of unit_keys at multiples of it.
std::map<row_block_name, std::set<std::int32_t>> units_of(scheduled_batch const& b,
                                                          split_rule const& rule) {
  std::map<row_block_name, std::set<std::int32_t>> all;
  for (std::size_t s = 0; s < b.lengths.size(); ++s)
    for (std::int32_t h = 0; h < b.kv_heads; ++h) {
      auto const pairs = b.rows[s] * b.q_heads / b.kv_heads;
      if (pairs < rule.least_pairs || pairs > rule.most_pairs) continue;
      for (std::int32_t first = 0; first < pairs; first += rule.block_rows) {
        auto& units = all[{static_cast<std::int32_t>(s), h, first}];
        for (std::int32_t t = 0; t < b.lengths[s]; ++t) {
          auto const lowest_row = b.lengths[s] - b.rows[s];
          if (t >= b.key_begin && t < b.key_end && t > std::int64_t{lowest_row} - b.rule.window)
            units.insert(t / rule.unit_keys);
        }
      }
    }
  return all;
}

void check_schedule(scheduled_batch const& b, split_rule const& rule) {
  auto const expected = units_of(b, rule);
  auto const got = pieces_of(b, rule);
  std::map<row_block_name, std::set<std::int32_t>> seen;
  std::map<row_block_name, std::set<std::int64_t>> states;
  std::set<std::int64_t> all_states;
  std::size_t least = SIZE_MAX, most = 0, num_pieces = 0;
  for (auto const& pieces : got.of_block) {
    std::size_t units_of_block = 0;
    for (auto const& p : pieces) {
      row_block_name const name{p.seq, p.kv_head, p.first_pair};
      REQUIRE(p.keys.end > p.keys.begin);
      REQUIRE(all_states.insert(p.state).second);
      REQUIRE(p.pairs ==
              std::min(rule.block_rows,
                       b.rows[support::as_size(p.seq)] * b.q_heads / b.kv_heads - p.first_pair));
      states[name].insert(p.state);
      ++num_pieces;
      for (auto u = p.keys.begin / rule.unit_keys; u * rule.unit_keys < p.keys.end; ++u) {
        REQUIRE(seen[name].insert(u).second);
        ++units_of_block;
      }
      if (rule.fixed) REQUIRE((p.keys.end - 1) / rule.unit_keys == p.keys.begin / rule.unit_keys);
    }
    least = std::min(least, units_of_block);
    most = std::max(most, units_of_block);
  }
  std::size_t total = 0;
  for (auto const& [name, units] : expected) {
    total += units.size();
    CHECK((units.empty() || seen[name] == units));
  }
  if (total >= got.of_block.size()) CHECK(most - least <= 1);
  CHECK(most <= (total + got.of_block.size() - 1) / got.of_block.size() + 1);

  // Every row block is merged once, from the states that its pieces have.
  CHECK(got.row_blocks.size() == expected.size());
  std::int64_t rows = 0;
  for (auto const& r : got.row_blocks) {
    row_block_name const name{r.seq, r.kv_head, r.first_pair};
    REQUIRE(expected.contains(name));
    std::set<std::int64_t> merged;
    for (std::int64_t i = 0; i < r.num_states; ++i) merged.insert(r.first_state + i);
    CHECK(merged == states[name]);
  }
  for (auto const r : b.rows) rows += r;
  auto const longest = *std::max_element(b.lengths.begin(), b.lengths.end());
  auto const room = most_states(rule, static_cast<std::int64_t>(b.lengths.size()), rows, longest,
                                b.q_heads / b.kv_heads, b.kv_heads);
  for (auto const s : all_states) CHECK(s < room);
  CHECK(num_pieces <= static_cast<std::size_t>(room));
}

}  // namespace

TEST_CASE("cuda schedule: every unit once, blocks differ by one, states are those merged") {
  scheduled_batch const batches[] = {
      {{1}, {1}},
      {{64}, {1}},
      {{65}, {1}},
      {{1000}, {1}, 8, 1},
      {{0, 3, 500, 64, 0}, {1, 1, 2, 0, 0}},
      {{128, 4000, 17}, {1, 1, 40}},
      {{300, 300}, {1, 5}, 32, 8},
      {std::vector<std::int32_t>(150, 70), std::vector<std::int32_t>(150, 1)},
  };
  for (auto const& b : batches)
    for (auto const fixed : {false, true})
      for (auto const parts : {1, 2, 7, 33}) {
        split_rule rule;
        rule.parts = parts;
        rule.fixed = fixed;
        check_schedule(b, rule);
        rule.block_rows = 1;
        rule.unit_keys = 128;
        check_schedule(b, rule);
      }
}

TEST_CASE("cuda schedule: windows, parts of the keys, and sequences that others take") {
  scheduled_batch b{{1000, 300, 5}, {1, 20, 3}};
  for (auto const parts : {1, 5, 16}) {
    split_rule rule;
    rule.parts = parts;
    b.rule.window = 100;
    check_schedule(b, rule);
    b.rule.window = 1;
    check_schedule(b, rule);
    b.rule = {};
    b.key_begin = 70;
    b.key_end = 290;
    check_schedule(b, rule);
    b.key_begin = 0;
    b.key_end = strata::all_keys;
    rule.least_pairs = 3;
    rule.most_pairs = 39;
    check_schedule(b, rule);
  }
}
