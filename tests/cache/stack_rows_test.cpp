// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which rows of a batch a layer must compute: all below a sequence's tail, from there on those
// whose logits are wanted. Sequences of one batch have tails of their own.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/stack.hpp>

#include "support/print.hpp"
#include "support/storage_types.hpp"
#include "support/toy_model.hpp"
#include "support/unwritten_step.hpp"

using strata::batch_entry;
using strata::layer_id;
using strata::logits;

namespace {

using row_storage = strata::paged_storage<strata::f32_codec>;
using row_stack = strata::stack<row_storage, strata::reference_attention>;

struct sequence_of_rows {
  std::vector<std::int32_t> leaders;
  std::int32_t held;  // tokens before the step
  batch_entry entry;
};

struct expected_row {
  std::int32_t index, position, tail;
  bool wants_logits;
};

/// The rows of a batch, straight from the definition.
std::vector<expected_row> rows_of(std::vector<sequence_of_rows> const& sequences,
                                  std::vector<std::int32_t> const& tails) {
  std::vector<expected_row> rows;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    auto const& e = sequences[s].entry;
    auto const first = e.first_position < 0 ? sequences[s].held : e.first_position;
    for (std::int32_t i = 0; i < e.new_tokens; ++i) {
      bool const last = i == e.new_tokens - 1;
      bool const wants = e.wanted == logits::all || (e.wanted == logits::last && last);
      rows.push_back({static_cast<std::int32_t>(rows.size()), first + i, tails[s], wants});
    }
  }
  return rows;
}

std::vector<std::int32_t> alive_after(std::vector<expected_row> const& rows, std::int32_t layer) {
  std::vector<std::int32_t> alive;
  for (auto const& r : rows)
    if (layer < r.tail || r.wants_logits) alive.push_back(r.index);
  return alive;
}

std::vector<std::int32_t> copied_rows(std::span<std::int32_t const> s) {
  return {s.begin(), s.end()};
}

/// Checks one batch at every layer, and that rows of x follow their indices through it.
void check_rows(strata::kv_classes const& classes, std::vector<sequence_of_rows> sequences) {
  row_stack st(support::make_storage<row_storage>(
      classes, {.max_sequences = 8, .max_tokens = 16, .k_tensors = 40, .v_tensors = 40}));
  std::vector<batch_entry> batch;
  std::vector<std::int32_t> tails;
  for (auto& s : sequences) {
    auto const plan = *make_plan(strata::leader_set(classes.num_layers(), s.leaders), classes);
    s.entry.sequence = *st.open(plan);
    REQUIRE(support::grow_unwritten(st, {s.entry.sequence, s.held}).ok());
    batch.push_back(s.entry);
    tails.push_back(plan.tail_begin);
  }
  auto const rows = rows_of(sequences, tails);
  auto step = st.begin(batch);
  REQUIRE(step.state().ok());
  REQUIRE(step.num_rows() == static_cast<std::int32_t>(rows.size()));
  for (auto const& r : rows)
    CHECK(step.positions()[static_cast<std::size_t>(r.index)] == r.position);

  constexpr std::int64_t width = 3;
  std::vector<std::int32_t> x;  // row r holds r, r + 100, r + 200
  for (auto const& r : rows) x.insert(x.end(), {r.index, r.index + 100, r.index + 200});
  auto const holds = [&](std::vector<std::int32_t> const& expected) {
    for (std::size_t i = 0; i < expected.size(); ++i)
      for (std::size_t j = 0; j < 3; ++j)
        if (x[i * 3 + j] != expected[i] + static_cast<std::int32_t>(100 * j)) return false;
    return true;
  };
  for (layer_id l{0}; l.index < classes.num_layers(); ++l.index) {
    CAPTURE(l.index);
    auto const input = alive_after(rows, l.index - 1), live = alive_after(rows, l.index);
    CHECK(copied_rows(step.input_rows(l)) == input);
    CHECK(copied_rows(step.live_rows(l)) == live);
    CHECK(holds(input));
    step.keep_live(l, x.data(), width);
    CHECK(holds(live));
    for (std::size_t i = 0; i < live.size(); ++i)
      CHECK(step.live_positions(l)[i] == rows[static_cast<std::size_t>(live[i])].position);
  }
  auto const wanted = alive_after(rows, strata::max_layers);
  CHECK(copied_rows(step.logit_rows()) == wanted);
  step.keep_logits({classes.num_layers() - 1}, x.data(), width);
  CHECK(holds(wanted));
}

strata::kv_classes uniform_toys(std::int32_t layers) {
  return strata::kv_classes::uniform(layers, support::toy_kind());
}

}  // namespace

TEST_CASE("one sequence, every tail, every wish for logits") {
  for (std::int32_t tail = 0; tail < 5; ++tail)
    for (auto const wanted : {logits::none, logits::last, logits::all})
      for (std::int32_t tokens : {0, 1, 4}) {
        CAPTURE(tail);
        CAPTURE(tokens);
        std::vector<std::int32_t> leaders{0};
        if (tail > 0) leaders.push_back(tail);
        check_rows(uniform_toys(5), {{leaders, 0, {{}, tokens, wanted}}});
        check_rows(uniform_toys(5), {{leaders, 3, {{}, tokens, wanted, 9}}});
      }
}

TEST_CASE("sequences of one batch have tails of their own") {
  check_rows(uniform_toys(6), {{{0, 1, 2, 3, 4, 5}, 2, {{}, 3, logits::last}},
                               {{0, 3}, 0, {{}, 4, logits::last}},
                               {{0}, 5, {{}, 1, logits::last}},
                               {{0, 3}, 1, {{}, 2, logits::all, 7}},
                               {{0, 2}, 0, {{}, 3, logits::none}},
                               {{0, 5}, 0, {{}, 0, logits::last}},
                               {{0, 1}, 0, {{}, 5, logits::none}}});
}

TEST_CASE("a batch in which no sequence wants logits dies out at the last tail") {
  check_rows(uniform_toys(4),
             {{{0, 1}, 0, {{}, 2, logits::none}}, {{0, 2}, 0, {{}, 2, logits::none}}});
}

TEST_CASE("a linear layer on top keeps every row to the end") {
  std::vector<strata::layer_kind> const layers{support::toy_kind(), support::toy_kind(),
                                               support::toy_kind(), support::toy_linear()};
  check_rows(*strata::kv_classes::make(layers),
             {{{0}, 0, {{}, 3, logits::last}}, {{0, 1}, 2, {{}, 2, logits::none}}});
}
