// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 10: a step reserves everything or nothing, nothing is visible before commit, without commit
// nothing happened, and a call that is refused changes nothing.
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>

#include "support/print.hpp"
#include "support/storage_types.hpp"
#include "support/toy_serving.hpp"
#include "support/unwritten_step.hpp"

using strata::batch_entry;
using strata::errc;
using strata::layer_id;
using strata::sequence_id;
using strata::status;

namespace {

using step_storages = std::tuple<strata::contiguous_storage<strata::f64_codec>,
                                 strata::paged_storage<strata::f64_codec>>;

support::toy_shape four_toy_layers() {
  support::toy_shape shape;
  shape.layers = std::vector(4, support::toy_kind());
  return shape;
}

/// A stack in guarded memory with a sequence of depth 4 and one that shares.
template <class S>
struct stepped_stack {
  using stack_type = strata::stack<S, strata::reference_attention>;

  support::toy_model<double> model{four_toy_layers()};
  strata::kv_classes classes = model.shape().classes();
  support::storage_room room{.max_sequences = 3, .max_tokens = 8, .k_tensors = 6, .v_tensors = 6};
  support::guarded_memory memory = support::memory_for<S>(classes, room);
  stack_type stack{support::make_storage<S>(classes, room, memory.borrow())};
  sequence_id full = *stack.open(*make_plan(strata::identity_map(4), classes));
  sequence_id shared = *stack.open(*make_plan(strata::grouped_map(4, 2), classes));
  support::toy_server<double, stack_type> server{model, stack};

  stepped_stack() { REQUIRE(server.serve({{full, {1, 2, 3}}, {shared, {4, 5}}}).state.ok()); }

  S& storage() { return const_cast<S&>(stack.storage()); }  // k_blocks is for writers too
  support::storage_state state() { return state_of(storage(), {full, shared}, memory); }
};

/// A step refuses: all of its calls say so, and hand out nothing.
template <class Step>
void check_dead(Step& step, status const& expected) {
  CHECK(step.state() == expected);
  CHECK(step.commit() == expected);
  CHECK(step.num_rows() == 0);
  CHECK(step.positions().empty());
  CHECK(step.logit_rows().empty());
  support::share_executor exec;
  double x[64] = {};
  strata::layer_queries<double> queries{x, x, nullptr, 4};
  for (layer_id l{0}; l.index < 4; ++l.index) {
    CHECK(step.k_writers(l).empty());
    CHECK(step.v_writers(l).empty());
    CHECK(step.input_rows(l).empty());
    CHECK(step.live_rows(l).empty());
    CHECK(step.live_positions(l).empty());
    CHECK(step.view(l).state() == expected);
    CHECK(step.workspace_bytes(l, queries, 1).state() == expected);
    CHECK(step.attend(exec, l, queries) == expected);
  }
  step.keep_live({0}, x, 8);
  step.keep_logits({3}, x, 8);
  CHECK(step.commit() == expected);
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a step that is refused has reserved nothing", S, step_refused) {
  stepped_stack<S> f;
  auto const before = f.state();
  auto const int_max = (std::numeric_limits<std::int32_t>::max)();
  struct refusal {
    std::vector<batch_entry> batch;
    errc expected;
  };
  batch_entry const good{f.full, 2};
  refusal const refusals[] = {
      {{good, {sequence_id{2}, 1}}, errc::unknown_sequence},
      {{good, {f.shared, 1}, good}, errc::duplicate_sequence},
      {{good, {f.shared, 7}}, errc::sequence_full},
      {{good, {f.shared, -1}}, errc::bad_new_tokens},
      {{good, {f.shared, int_max}}, errc::too_many_rows},  // the rows of the batch
      {{{f.shared, int_max}}, errc::sequence_full},
      {{good, {f.shared, 1, strata::logits::last, 1}}, errc::position_not_ahead},
  };
  for (auto const& r : refusals) {
    auto step = f.stack.begin(r.batch);
    CHECK(step.state().code == r.expected);
    check_dead(step, step.state());
    CHECK(f.state() == before);
  }
}
TEST_CASE_TEMPLATE_APPLY(step_refused, step_storages);

TEST_CASE_TEMPLATE_DEFINE("a step out of blocks says how many are missing", S, step_blocks) {
  stepped_stack<S> f;
  auto const third = *f.stack.open(*make_plan(strata::identity_map(4), f.classes));
  auto const before = f.state();
  auto const step = f.stack.begin({third, 8});
  // Six K tensors, of which 4 + 2 are taken; four more were needed. The same for V.
  auto const tensor = support::is_paged<S> ? 2 : 1;
  auto const free = f.storage().free_k_blocks();
  CHECK(step.state() == status{errc::out_of_k_blocks, {}, 4 * tensor - free, free});
  CHECK(f.state() == before);
}
TEST_CASE_TEMPLATE_APPLY(step_blocks, step_storages);

TEST_CASE_TEMPLATE_DEFINE("nothing is visible before commit, and all of it after", S,
                          step_commits) {
  stepped_stack<S> f;
  auto const before = f.state();
  batch_entry const batch[] = {{f.full, 2}, {f.shared, 3, strata::logits::none, 6}};
  auto step = f.stack.begin(batch);
  REQUIRE(step.state().ok());
  for (layer_id l{0}; l.index < 4; ++l.index) {
    std::vector<double> const heads(16, 0.5);
    for (auto const& run : step.k_writers(l))
      for (std::int32_t i = 0; i < run.num_rows(); ++i) run.store(i, heads.data());
    for (auto const& run : step.v_writers(l))
      for (std::int32_t i = 0; i < run.num_rows(); ++i) run.store(i, heads.data());
  }
  CHECK(f.stack.storage().length(f.full) == 3);
  CHECK(f.stack.storage().next_position(f.shared) == 2);
  REQUIRE(step.commit().ok());
  CHECK(f.stack.storage().length(f.full) == 5);
  CHECK(f.stack.storage().length(f.shared) == 5);
  CHECK(f.stack.storage().next_position(f.shared) == 9);
  CHECK_FALSE(f.state() == before);

  auto const after = f.state();
  check_dead(step, {errc::no_step});  // commit twice, attend after commit
  CHECK(f.state() == after);
  CHECK(f.memory.guards_intact());
}
TEST_CASE_TEMPLATE_APPLY(step_commits, step_storages);

TEST_CASE_TEMPLATE_DEFINE("a step that is destroyed never happened", S, step_destroyed) {
  stepped_stack<S> dropped, never;
  auto const before = dropped.state();
  auto const more = [](stepped_stack<S>& f) -> std::vector<support::toy_entry> {
    return {{f.shared, {7, 8, 9}}, {f.full, {10}, strata::logits::last, 20}};
  };
  auto const lost = dropped.server.serve(more(dropped), false);
  REQUIRE(lost.state.ok());
  auto state = dropped.state();
  state.k = before.k;  // what was written lies beyond every length, or in blocks that are free
  state.v = before.v;
  CHECK(state == before);

  // The same step again gives the same, and so does another one, as where it never was.
  CHECK(support::same_bits(dropped.server.serve(more(dropped)).logits, lost.logits));
  CHECK(support::same_bits(never.server.serve(more(never)).logits, lost.logits));
  CHECK(support::same_bits(dropped.server.serve({{dropped.full, {3, 1}}}).logits,
                           never.server.serve({{never.full, {3, 1}}}).logits));
}
TEST_CASE_TEMPLATE_APPLY(step_destroyed, step_storages);

TEST_CASE_TEMPLATE_DEFINE("one step at a time, and the first is not disturbed", S, step_alone) {
  stepped_stack<S> f;
  auto step = f.stack.begin({f.full, 2});
  auto const writers = step.k_writers({1});
  auto const view = step.view({1});
  REQUIRE(writers.size() == 1);
  auto const during = f.state();

  std::vector<batch_entry> const larger{{f.shared, 3}, {f.full, 1}, {sequence_id{2}, 1}};
  for (int i = 0; i < 2; ++i) {
    auto second = f.stack.begin(larger);
    check_dead(second, {errc::step_in_progress});
  }
  CHECK(f.stack.open(*make_plan(strata::identity_map(4), f.classes)).state().code ==
        errc::step_in_progress);
  CHECK(f.stack.close(f.shared) == status{errc::step_in_progress});
  CHECK(f.state() == during);

  // What the first had handed out still stands.
  CHECK(step.num_rows() == 2);
  CHECK(view->rows.lengths[0] == 5);
  std::vector<double> heads(12, 0.25), back(6);
  writers[0].store(1, heads.data());
  view->load_k(0, 1, 4, back.data());
  CHECK(back == std::vector<double>(6, 0.25));
  support::mark_all_stored(step, 4);
  CHECK(step.commit().ok());
  CHECK(f.stack.begin({f.shared, 1}).state().ok());
}
TEST_CASE_TEMPLATE_APPLY(step_alone, step_storages);

TEST_CASE_TEMPLATE_DEFINE("a layer that does not exist", S, step_bad_layer) {
  stepped_stack<S> f;
  auto const before = f.state();
  support::share_executor exec;
  double x[32] = {};
  strata::layer_queries<double> const queries{x, x, nullptr, 4};
  for (layer_id const bad : {layer_id{-1}, layer_id{4}, layer_id{1000}}) {
    status const expected{errc::layer_out_of_range, bad, bad.index, 4};
    auto step = f.stack.begin({f.full, 1});
    CHECK(step.view(bad).state() == expected);
    CHECK(step.attend(exec, bad, queries) == expected);
    CHECK(step.state().ok());
    // A writer has no status to return. What was not stored there makes commit refuse.
    CHECK(step.k_writers(bad).empty());
    CHECK(step.commit() == expected);
    CHECK(step.commit() == expected);
  }
  CHECK(f.state() == before);
}
TEST_CASE_TEMPLATE_APPLY(step_bad_layer, step_storages);

TEST_CASE_TEMPLATE_DEFINE("batches of nothing", S, step_empty) {
  stepped_stack<S> f;
  auto const before = f.state();
  CHECK(f.server.serve({}).state.ok());
  CHECK(f.server.serve({{f.full, {}}, {f.shared, {}}}).state.ok());
  auto const empty = *f.stack.open(*make_plan(strata::identity_map(4), f.classes));
  CHECK(f.server.serve({{empty, {}}}).state.ok());
  CHECK(f.server.serve({{empty, {}}, {f.full, {}}}).logits.empty());
  CHECK(f.state() == before);
}
TEST_CASE_TEMPLATE_APPLY(step_empty, step_storages);

TEST_CASE_TEMPLATE_DEFINE("every row wants logits unless told otherwise, and q has one row each", S,
                          step_rows_of_q) {
  stepped_stack<S> f;
  support::share_executor exec;
  support::workspace_memory workspace;
  std::vector<double> const q(3 * 4 * 6, 0.5), heads(3 * 2 * 6, 0.25);
  std::vector<double> const untouched(3 * 4 * 4, -7);
  for (auto const wanted : {batch_entry{}.wanted, strata::logits::last}) {
    auto step = f.stack.begin({{f.full, 1, wanted}, {f.shared, 2, wanted}});
    REQUIRE(step.state().ok());
    for (layer_id l{0}; l.index < 4; ++l.index) {
      for (auto const& run : step.k_writers(l)) run.store_all(heads.data());
      for (auto const& run : step.v_writers(l)) run.store_all(heads.data());
      // `shared` has its tail at layer 2; the last of its two rows goes on from there.
      auto const live = wanted == strata::logits::all || l.index < 2 ? 3 : 2;
      for (std::int32_t const rows : {-1, 0, 1, 2, 3, 4}) {
        auto out = untouched;
        strata::layer_queries<double> queries{
            .q = q.data(), .out = out.data(), .q_heads = 4, .num_rows = rows};
        auto const room = workspace.get(*step.workspace_bytes(l, queries, 1));
        bool const fits = rows < 0 || rows == live;
        CHECK(step.attend(exec, l, queries, room) ==
              (fits ? status{} : status{errc::num_rows_mismatch, l, rows, live}));
        CHECK((out == untouched) == !fits);
      }
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(step_rows_of_q, step_storages);

TEST_CASE("keys captured before RoPE cannot be served") {
  auto kind = support::toy_kind();
  kind.kv.capture = strata::capture_stage::before_rope;
  auto const classes = strata::kv_classes::uniform(2, kind);
  strata::stack<strata::contiguous_storage<strata::f64_codec>, strata::reference_attention> stack(
      support::make_storage<strata::contiguous_storage<strata::f64_codec>>(classes));
  CHECK(stack.open(*make_plan(strata::identity_map(2), classes)).state() ==
        status{errc::capture_unsupported, {0}});
  // Nor by the storage alone, as an index of prefixes or a snapshot would open it.
  CHECK(stack.between_steps().open(*make_plan(strata::identity_map(2), classes)).state() ==
        status{errc::capture_unsupported, {0}});
}
