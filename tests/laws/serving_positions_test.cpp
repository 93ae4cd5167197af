// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 8: masks compare positions, never indices. Sequences with gaps, in every kind of chunk and
// beside neighbours without gaps, against the dense computation.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

namespace {

/// Runs of adjacent positions, as a server would bring them: {first position, tokens}.
struct run {
  std::int32_t first_position;
  std::int32_t tokens;
};

std::vector<std::int32_t> positions_of(std::vector<run> const& runs) {
  std::vector<std::int32_t> positions;
  for (auto const& r : runs)
    for (std::int32_t i = 0; i < r.tokens; ++i) positions.push_back(r.first_position + i);
  return positions;
}

/// Serves the runs in chunks of at most `chunk` tokens. A neighbour without gaps grows along.
template <class Toy>
auto serve_runs(Toy& toy, strata::sequence_id id, std::vector<std::int32_t> const& tokens,
                std::vector<run> const& runs, std::int32_t chunk,
                strata::sequence_id neighbour = {}) {
  std::vector<typename Toy::number> logits;
  auto next = tokens.begin();
  for (auto const& r : runs)
    for (std::int32_t at = 0; at < r.tokens; at += chunk) {
      auto const count = r.tokens - at < chunk ? r.tokens - at : chunk;
      // Where no gap lies before the chunk, the storage may continue by itself.
      auto const first = at > 0 ? strata::continue_position : r.first_position;
      std::vector<support::toy_entry> batch{{id, {next, next + count}, strata::logits::all, first}};
      if (neighbour.valid()) batch.push_back({neighbour, {7}, strata::logits::none});
      auto const output = toy.server.serve(batch);
      if (!output.state.ok()) return std::vector<typename Toy::number>{};
      logits.insert(logits.end(), output.logits.begin(), output.logits.end());
      next += count;
    }
  return logits;
}

std::vector<std::vector<run>> const all_runs{
    {{0, 10}},         // no gap at all
    {{5, 10}},         // does not begin at 0
    {{0, 4}, {9, 6}},  // one gap
    {{3, 1}, {4, 2}, {100, 5}, {1000, 2}},
};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("gaps: every chunk gives the bits of the whole, and the dense numbers",
                          Toy, serving_gaps) {
  auto const tokens = support::toy_tokens(10, 30);
  for (std::int32_t const window : {strata::unbounded_window, 4, 97}) {
    CAPTURE(window);
    support::toy_shape shape;
    shape.layers = std::vector(6, support::toy_kind(2, 6, 4, window));
    Toy toy(shape);
    for (auto const& runs : all_runs)
      for (auto const& p : support::plans_of_six(shape.classes())) {
        CAPTURE(p.name);
        auto const positions = positions_of(runs);
        std::vector<double> whole;
        for (std::int32_t const chunk : {10, 1, 3}) {
          auto const id = *toy.stack.open(p.plan);
          auto const logits = serve_runs(toy, id, tokens, runs, chunk);
          if (whole.empty()) whole = logits;
          CHECK(support::same_bits(logits, whole));
          CHECK(toy.stack.storage().next_position(id) == positions.back() + 1);
          CHECK(toy.stack.close(id).ok());
        }
        auto const dense = toy.dense(p.sources, tokens, positions);
        CHECK(support::worst_error(whole, dense) < Toy::bound);
      }
  }
}
TEST_CASE_TEMPLATE_APPLY(serving_gaps, support::double_toys);

// The table of positions appears with the first gap in the storage; whoever has none must not
// notice, nor must a sequence that takes over the id of one that had.
TEST_CASE_TEMPLATE_DEFINE("gaps are nobody else's business", Toy, serving_gap_neighbours) {
  auto const tokens = support::toy_tokens(10, 31);
  support::toy_shape const shape;
  auto const plans = support::plans_of_six(shape.classes());
  Toy toy(shape);
  auto const neighbour = *toy.stack.open(plans[1].plan);
  REQUIRE(toy.server.serve({{neighbour, {1, 2, 3}}}).state.ok());
  for (auto const& runs : {all_runs[2], all_runs[0], all_runs[3], all_runs[0]}) {
    auto const expected = toy.dense(plans[4].sources, tokens, positions_of(runs));
    auto const id = *toy.stack.open(plans[4].plan);
    auto const logits = serve_runs(toy, id, tokens, runs, 4, neighbour);
    CHECK(support::worst_error(logits, expected) < Toy::bound);
    CHECK(toy.stack.close(id).ok());
  }
  auto const held = toy.stack.storage().length(neighbour);
  std::vector<std::int32_t> all{1, 2, 3};
  all.resize(static_cast<std::size_t>(held), 7);
  auto const next = toy.server.serve({{neighbour, {9}}});
  all.push_back(9);
  auto const alone = toy.alone(plans[1].plan, all, {all.size()});
  CHECK(support::same_bits(next.logits, std::vector(alone.end() - 8, alone.end())));
}
TEST_CASE_TEMPLATE_APPLY(serving_gap_neighbours, support::double_toys);
