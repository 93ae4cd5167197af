// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A batch sorted by depth: where leader sets are nested, the rows that store a layer are one range.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/stack.hpp>

#include "support/print.hpp"
#include "support/storage_types.hpp"

using strata::batch_entry;
using strata::layer_id;
using strata::logits;

namespace {

constexpr std::int32_t ordered_layers = 6;

using ordered_storage = strata::paged_storage<strata::f32_codec>;
using ordered_stack = strata::stack<ordered_storage, strata::reference_attention>;
using leader_list = std::vector<std::int32_t>;

strata::kv_classes const ordered_classes =
    strata::kv_classes::uniform(ordered_layers, {.kv = {.kv_heads = 1, .k_dim = 4, .v_dim = 4}});

/// Each is part of the one before.
std::vector<leader_list> const nested_leaders = {
    {0, 1, 2, 3, 4, 5}, {0, 1, 3, 5}, {0, 3, 5}, {0, 3}, {0}};

struct batch_of_many {
  ordered_stack st{support::make_storage<ordered_storage>(
      ordered_classes, {.max_sequences = 12, .max_tokens = 8, .k_tensors = 72, .v_tensors = 72})};
  std::vector<batch_entry> entries;
  std::map<std::int32_t, leader_list> leaders_of;  // by sequence

  void open(leader_list const& of, std::int32_t tokens, logits wanted) {
    auto const plan = *make_plan(strata::leader_set(ordered_layers, of), ordered_classes);
    auto const id = *st.open(plan);
    leaders_of[id.index] = of;
    entries.push_back({id, tokens, wanted});
  }
};

batch_of_many random_batch(std::mt19937& random, std::vector<leader_list> const& sets) {
  batch_of_many b;
  for (int i = 0; i < 12; ++i)
    b.open(sets[random() % sets.size()], static_cast<std::int32_t>(random() % 4),
           static_cast<logits>(random() % 3));
  return b;
}

/// The runs that the definition gives: neighbours among the rows that enter a layer, of sequences
/// that lead there.
std::int64_t runs_by_hand(batch_of_many const& b, std::int32_t layer) {
  std::int64_t runs = 0;
  bool adjacent = false;
  for (auto const& e : b.entries) {
    auto const& of = b.leaders_of.at(e.sequence.index);
    auto const tail = of.back();
    auto const wanting = e.wanted == logits::all
                             ? e.new_tokens
                             : std::min(e.new_tokens, e.wanted == logits::last ? 1 : 0);
    auto const entering = layer <= tail ? e.new_tokens : wanting;
    if (entering == 0) continue;
    bool const leads = std::count(of.begin(), of.end(), layer) > 0;
    runs += leads && !adjacent;
    adjacent = leads;
  }
  return runs;
}

}  // namespace

TEST_CASE("sorted by depth: nested leader sets store each layer in one run") {
  std::mt19937 random(7);
  std::int64_t unsorted_runs = 0, sorted_runs = 0;
  for (int round = 0; round < 100; ++round) {
    auto b = random_batch(random, nested_leaders);
    for (std::int32_t l = 0; l < ordered_layers; ++l) unsorted_runs += runs_by_hand(b, l);
    b.st.sort_by_depth(b.entries);
    auto step = b.st.begin(b.entries);
    REQUIRE(step.state().ok());
    for (layer_id l{0}; l.index < ordered_layers; ++l.index) {
      CHECK(step.k_writers(l).size() <= 1);
      CHECK(step.v_writers(l).size() <= 1);
      CHECK(std::ssize(step.k_writers(l)) == runs_by_hand(b, l.index));
      sorted_runs += std::ssize(step.k_writers(l));
    }
  }
  CHECK(2 * unsorted_runs > 3 * sorted_runs);  // as they came, there are more
}

TEST_CASE("sorted by depth: the deepest first, equal ones as they were, none lost") {
  std::mt19937 random(8);
  std::vector<leader_list> const sets = {{0}, {0, 1}, {0, 2}, {0, 5}, {0, 1, 2, 3}, {0, 2, 4, 5}};
  for (int round = 0; round < 100; ++round) {
    auto b = random_batch(random, sets);
    auto expected = b.entries;
    std::stable_sort(expected.begin(), expected.end(), [&](auto const& x, auto const& y) {
      return b.leaders_of.at(x.sequence.index).size() > b.leaders_of.at(y.sequence.index).size();
    });
    b.st.sort_by_depth(b.entries);
    REQUIRE(b.entries.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CHECK(b.entries[i].sequence == expected[i].sequence);
      CHECK(b.entries[i].new_tokens == expected[i].new_tokens);
      CHECK(b.entries[i].wanted == expected[i].wanted);
    }
  }
}

TEST_CASE("sorted by depth: no sequence and one") {
  batch_of_many b;
  b.st.sort_by_depth(b.entries);
  CHECK(b.entries.empty());
  b.open({0, 2}, 3, logits::last);
  b.st.sort_by_depth(b.entries);
  CHECK(b.entries.size() == 1);
}
