// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A step for kernels that are called directly: `view` and `queries` are all that `attend` passes on.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>

#include "support/exact_numbers.hpp"
#include "support/print.hpp"
#include "support/storage_types.hpp"
#include "support/unwritten_step.hpp"

using strata::errc;
using strata::layer_id;
using strata::share;
using strata::status;

namespace {

using queried_storage = strata::paged_storage<strata::f32_codec>;
using queried_stack = strata::stack<queried_storage, strata::reference_attention>;
using queried_step = strata::step<queried_storage, strata::reference_attention>;

constexpr std::int32_t queried_kv_heads = 2, queried_heads = 4, queried_dim = 8, queried_layers = 4;

/// The last two layers see three tokens.
strata::kv_classes queried_classes() {
  strata::layer_kind kind;
  kind.kv.kv_heads = queried_kv_heads;
  kind.kv.k_dim = kind.kv.v_dim = queried_dim;
  auto narrow = kind;
  narrow.window = 3;
  return *strata::kv_classes::make(std::vector{kind, kind, narrow, narrow});
}

struct two_queried {
  queried_stack stack{support::make_storage<queried_storage>(queried_classes())};
  // The second has its tail at layer 2; only the last of its rows wants logits.
  std::vector<strata::batch_entry> batch{
      {*stack.open(*make_plan(strata::identity_map(queried_layers), queried_classes())), 5},
      {*stack.open(*make_plan(strata::grouped_map(queried_layers, 2), queried_classes())), 4,
       strata::logits::last, 7}};
  std::vector<float> k = support::random_values<float>(9 * queried_kv_heads * queried_dim, 1);
  std::vector<float> q = support::random_values<float>(9 * queried_heads * queried_dim, 2);
  std::vector<float> out = std::vector<float>(q.size());

  strata::layer_queries<float> queries() {
    return {.q = q.data(), .out = out.data(), .q_heads = queried_heads};
  }
  void store(queried_step& step, layer_id l) {
    for (auto const& run : step.k_writers(l)) run.store_all(k.data());
    for (auto const& run : step.v_writers(l)) run.store_all(k.data());
  }
};

/// partial and combine, a share after the other.
status call_in_shares(queried_step& step, layer_id l, strata::layer_queries<float> const& queries,
                      std::int32_t nth) {
  strata::reference_attention const kernel;
  auto const keys = step.view(l);
  if (!keys.ok()) return keys.state();
  auto const rows = step.queries(l, queries);
  if (!rows.ok()) return rows.state();
  std::vector<std::byte> workspace(
      static_cast<std::size_t>(*step.workspace_bytes(l, queries, nth)));
  for (std::int32_t i = 0; i < nth; ++i)
    if (auto const s = kernel.partial({i, nth}, *rows, *keys, workspace); !s.ok()) return s;
  for (std::int32_t i = 0; i < nth; ++i)
    if (auto const s = kernel.combine({i, nth}, *rows, *keys, workspace); !s.ok()) return s;
  return {};
}

}  // namespace

TEST_CASE("a kernel called with a step's view and queries does what attend does") {
  two_queried f;
  auto step = f.stack.begin(f.batch);
  REQUIRE(step.state().ok());
  strata::serial_executor here;
  std::vector<std::byte> workspace(4096);
  for (layer_id l{0}; l.index < queried_layers; ++l.index) {
    f.store(step, l);
    REQUIRE(step.attend(here, l, f.queries(), workspace).ok());
    auto const expected = f.out;
    for (std::int32_t const nth : {1, 3}) {
      f.out.assign(f.out.size(), -1);
      REQUIRE(call_in_shares(step, l, f.queries(), nth).ok());
      CHECK(std::vector(f.out.begin(), f.out.begin() + 6 * queried_heads * queried_dim) ==
            std::vector(expected.begin(), expected.begin() + 6 * queried_heads * queried_dim));
    }
  }
  CHECK(step.commit().ok());
}

TEST_CASE("queries of a step have its rows, its positions and the narrower window") {
  two_queried f;
  auto step = f.stack.begin(f.batch);
  for (layer_id l{0}; l.index < queried_layers; ++l.index) f.store(step, l);
  auto const all = *step.queries({0}, f.queries());
  CHECK(all.num_seqs == 2);
  CHECK(all.num_rows() == 9);
  CHECK(all.row_begin(1) == 5);
  CHECK(all.positions[5] == 7);
  CHECK(all.rule.window == strata::unbounded_window);
  auto const tail = *step.queries({2}, f.queries());
  CHECK(tail.num_rows() == 6);
  CHECK(tail.positions[5] == 10);
  CHECK(tail.rule.window == 3);
  auto narrower = f.queries();
  narrower.rule.window = 2;
  CHECK(step.queries({2}, narrower)->rule.window == 2);
}

TEST_CASE("a step answers for queries that it cannot run") {
  two_queried f;
  auto step = f.stack.begin(f.batch);
  auto const asked = [&](layer_id l) { return step.queries(l, f.queries()).state(); };
  CHECK(asked({-1}) == status{errc::layer_out_of_range, {-1}, -1, 4});
  CHECK(asked({0}) == status{errc::rows_not_stored, {0}, 9, 9});
  f.store(step, {0});
  CHECK(asked({0}).ok());
  CHECK(asked({1}) == status{errc::rows_not_stored, {1}, 5, 5});
  auto queries = f.queries();
  queries.num_rows = 8;
  CHECK(step.queries({0}, queries).state() == status{errc::num_rows_mismatch, {0}, 8, 9});
  for (std::int32_t const shares : {0, -1})
    CHECK(step.workspace_bytes({0}, f.queries(), shares).state() ==
          status{errc::bad_share, {0}, 0, shares});
  for (layer_id l{1}; l.index < queried_layers; ++l.index) f.store(step, l);
  REQUIRE(step.commit().ok());
  CHECK(asked({0}) == status{errc::no_step});
}

TEST_CASE("what attend refuses for the kernel has its layer") {
  two_queried f;
  auto step = f.stack.begin(f.batch);
  f.store(step, {0});
  strata::serial_executor here;
  auto queries = f.queries();
  queries.rule.window = -1;
  auto const sentence = [&] {
    return std::string(describe(step.attend(here, {0}, queries)).c_str());
  };
  CHECK(sentence() == "layer 0: the window of the rule is -1; at least 1 is needed");
  queries.rule.window = 1;
  queries.q_heads = 3;
  CHECK(sentence() == "layer 0: q_heads is 3; a multiple of the 2 KV heads is needed, and not 0");
  queries.q_heads = queried_heads;
  queries.q = nullptr;
  CHECK(sentence() == "layer 0: q is null");
}
