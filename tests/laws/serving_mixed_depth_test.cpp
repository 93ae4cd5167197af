// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 5 across a batch: sequences of different depth in one call are, each of them, the same bits
// as alone, whoever their neighbours are and however the batch changes from step to step.
#include <doctest/doctest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

using strata::logits;
using strata::sequence_id;

namespace {

support::storage_room const mixed_room{
    .max_sequences = 10, .max_tokens = 16, .k_tensors = 60, .v_tensors = 60, .block_size = 3};

/// One sequence of a batch, its tokens, and the logits of all of them when it is alone.
template <class T>
struct batch_member {
  sequence_id id;
  std::vector<std::int32_t> tokens;
  std::vector<T> alone;
  std::size_t served = 0;
};

template <class Toy>
auto make_members(Toy& toy, std::vector<support::toy_plan> const& plans) {
  std::vector<batch_member<typename Toy::number>> members;
  for (auto const& p : plans) {
    auto tokens = support::toy_tokens(14, members.size() + 20);
    auto alone = toy.alone(p.plan, tokens, {tokens.size()});
    members.push_back({{}, std::move(tokens), std::move(alone)});
  }
  for (std::size_t i = 0; i < plans.size(); ++i) members[i].id = *toy.stack.open(plans[i].plan);
  return members;
}

/// Serves the next `count` tokens of each listed member and checks their logits.
template <class Toy, class T>
bool step_is_right(Toy& toy, std::vector<batch_member<T>>& members,
                   std::vector<std::pair<std::size_t, std::size_t>> const& counts, logits wanted) {
  std::vector<support::toy_entry> batch;
  std::vector<T> expected;
  auto const width = static_cast<std::size_t>(toy.model.shape().width);
  for (auto const& [i, count] : counts) {
    auto& m = members[i];
    auto const from = m.tokens.begin() + static_cast<std::ptrdiff_t>(m.served);
    batch.push_back({m.id, {from, from + static_cast<std::ptrdiff_t>(count)}, wanted});
    m.served += count;
    auto first = m.served - count;
    if (wanted == logits::none) first = m.served;
    if (wanted == logits::last && count > 0) first = m.served - 1;
    expected.insert(expected.end(), m.alone.begin() + static_cast<std::ptrdiff_t>(first * width),
                    m.alone.begin() + static_cast<std::ptrdiff_t>(m.served * width));
  }
  auto const output = toy.server.serve(batch);
  return output.state.ok() && support::same_bits(output.logits, expected);
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a batch of mixed depth is each sequence alone, bit for bit", Toy,
                          serving_mixed) {
  support::toy_shape shape;
  shape.sinks = true;
  for (auto const& exec : support::all_executors()) {
    CAPTURE(exec.shares);
    Toy toy(shape, exec, mixed_room);
    auto members = make_members(toy, support::plans_of_six(shape.classes()));
    auto const all_of = [&](std::size_t count) {
      std::vector<std::pair<std::size_t, std::size_t>> counts;
      for (std::size_t i = 0; i < members.size(); ++i) counts.push_back({i, count});
      return counts;
    };
    CHECK(step_is_right(toy, members, all_of(3), logits::last));
    CHECK(step_is_right(toy, members, all_of(1), logits::all));
    // Prefill, decode and sequences that do not take part, in an order of their own.
    CHECK(step_is_right(toy, members, {{8, 5}, {0, 1}, {3, 1}, {7, 2}}, logits::all));
    CHECK(step_is_right(toy, members, {{2, 4}, {8, 0}, {9, 3}, {1, 1}}, logits::last));
    CHECK(step_is_right(toy, members, {{6, 2}, {5, 2}, {4, 2}}, logits::none));
    CHECK(step_is_right(toy, members, all_of(1), logits::last));
    CHECK(step_is_right(toy, members, {{9, 2}}, logits::all));
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_mixed, support::exact_toys);

TEST_CASE_TEMPLATE_DEFINE("a random life of batches", Toy, serving_random_batches) {
  support::toy_shape const shape;
  Toy toy(shape, {3, false}, mixed_room);
  auto members = make_members(toy, support::plans_of_six(shape.classes()));
  support::number_stream numbers(11);
  for (int round = 0; round < 25; ++round) {
    CAPTURE(round);
    std::vector<std::pair<std::size_t, std::size_t>> counts;
    for (std::size_t i = 0; i < members.size(); ++i) {
      auto const left = members[i].tokens.size() - members[i].served;
      auto const count = static_cast<std::size_t>(numbers.below(4));
      if (numbers.below(2) != 0) counts.push_back({i, count < left ? count : left});
    }
    auto const wanted = static_cast<logits>(numbers.below(3));
    REQUIRE(step_is_right(toy, members, counts, wanted));
    for (auto& m : members) {  // who is done makes room, and begins again in the old blocks
      if (m.served < m.tokens.size()) continue;
      auto const plan = toy.stack.storage().plan(m.id);
      REQUIRE(toy.stack.close(m.id).ok());
      m.id = *toy.stack.open(plan);
      m.served = 0;
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_random_batches, support::exact_toys);
