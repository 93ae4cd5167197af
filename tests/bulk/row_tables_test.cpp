// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The row tables that the host's steps lay out, filled on every system instead: random plans, K and
// V of their own, over every shipped storage. And the order in which leaders stand together.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/bulk/row_tables.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/table_map.hpp>
#include <strata/stack.hpp>

#include "bulk/systems.hpp"
#include "bulk/table_checks.hpp"
#include "support/engine_cache.hpp"
#include "support/models.hpp"
#include "support/print.hpp"
#include "support/unwritten_step.hpp"

using namespace bulk_test;
using strata::errc;
using strata::layer_id;
using strata::status;
using strata::tensor;

namespace {

using column = strata::route strata::layer_step::*;
constexpr column k_column = &strata::layer_step::k, v_column = &strata::layer_step::v;

/// Each layer leads, or reads any leader that it may.
strata::table_map random_map(strata::kv_classes const& classes, number_stream& numbers) {
  std::vector<std::int32_t> sources;
  for (layer_id l{0}; l.index < classes.num_layers(); ++l.index) {
    std::vector<std::int32_t> leaders;
    for (layer_id s{0}; s < l && classes[l].has_kv; ++s.index)
      if (sources[as_size(s.index)] == s.index && classes[s].has_kv &&
          classes.readable(l, s, strata::use::serving).ok())
        leaders.push_back(s.index);
    auto const count = static_cast<std::int32_t>(leaders.size());
    bool const leads = count == 0 || numbers.below(3) == 0;
    sources.push_back(leads ? l.index : leaders[as_size(numbers.below(count))]);
  }
  return *strata::table_map::make(sources);
}

/// How a storage numbers its rows, as row_tables.hpp says.
template <class S>
void number_rows(S const& storage, column side, std::int32_t max_sequences, table_input& in) {
  auto const num_layers = storage.classes().num_layers();
  auto const row = [&](std::int32_t id, std::int32_t l) {
    return side == k_column ? storage.k_row({id}, {l}) : storage.v_row({id}, {l});
  };
  if constexpr (requires { storage.max_sequences(); }) {
    for (auto& s : in.sequences) s.first_row *= num_layers;
    if constexpr (!support::is_paged<S>)
      for (std::int32_t id = 0; id < max_sequences; ++id)
        for (std::int32_t l = 0; l < num_layers; ++l) in.table.push_back(row(id, l));
  } else {
    for (std::int32_t l = 0; l < num_layers; ++l) in.row_of_tensor.push_back(row(0, l));
  }
}

template <class S>
struct batch_of {
  strata::kv_classes classes;
  support::storage_room room{.max_sequences = 6, .k_tensors = 60, .v_tensors = 60};
  std::vector<strata::route_plan> plans;
  support::storage_host<S> host{classes, room};
  strata::stack<S, strata::reference_attention> stack{host.make()};
  std::vector<std::int32_t> plan_of = {};  // of sequence ids, which count up

  /// K's or V's input of a batch, first_row of each sequence its id.
  table_input input(std::vector<strata::batch_entry> const& batch, column side) const {
    table_input in;
    in.num_plans = static_cast<std::int32_t>(plans.size());
    in.num_layers = classes.num_layers();
    for (auto const& plan : plans) {
      std::vector<std::int32_t> read(as_size(in.num_layers)), write(read);
      REQUIRE(bulk::fill_plan_tables(plan, side, bulk::tensors_by::layer, read, write).ok());
      in.read.insert(in.read.end(), read.begin(), read.end());
      in.write.insert(in.write.end(), write.begin(), write.end());
    }
    for (auto const& entry : batch) {
      bool const empty = stack.storage().length(entry.sequence) + entry.new_tokens == 0;
      auto const plan = empty ? -1 : plan_of[as_size(entry.sequence.index)];
      in.sequences.push_back({plan, entry.sequence.index});
    }
    number_rows(stack.storage(), side, room.max_sequences, in);
    return in;
  }
};

template <class S>
batch_of<S> random_storage(support::model const& model, number_stream& numbers) {
  auto const classes = model.classes();
  std::vector<strata::route_plan> plans;
  for (int i = 0; i < 3; ++i)
    plans.push_back(
        *make_plan(random_map(classes, numbers), random_map(classes, numbers), classes));
  batch_of<S> b{.classes = classes, .plans = plans};
  for (int i = 0; i < 5; ++i) {
    b.plan_of.push_back(numbers.below(3));
    auto const id = *b.stack.open(plans[as_size(b.plan_of.back())]);
    REQUIRE(id.index == i);
    REQUIRE(support::grow_unwritten(b.stack, {id, numbers.below(3)}).ok());
  }
  return b;
}

std::vector<strata::batch_entry> random_batch(number_stream& numbers) {
  std::vector<std::int32_t> ids = {0, 1, 2, 3, 4};
  for (std::int32_t n = 5; n > 1; --n)
    std::swap(ids[as_size(n - 1)], ids[as_size(numbers.below(n))]);
  std::vector<strata::batch_entry> batch;
  for (std::int32_t i = 0; i <= numbers.below(5); ++i)
    batch.push_back({{ids[as_size(i)]}, numbers.below(3)});
  return batch;
}

/// A layer of the tables against the step's own.
void check_layer(layer_id l, std::int32_t num_seqs, row_tables const& filled,
                 std::int32_t const* read_row, strata::append_rows const* written) {
  for (std::int32_t s = 0; s < num_seqs; ++s) {
    auto const cell = as_size(l.index * num_seqs + s);
    CHECK(filled.read[cell] == read_row[s]);
    if (written != nullptr) CHECK(filled.write[cell] == written->blocks.row_of[s]);
  }
}

template <class S>
void check_against_steps(support::model const& model, std::uint64_t seed) {
  CAPTURE(model.name);
  CAPTURE(seed);
  number_stream numbers(seed);
  auto b = random_storage<S>(model, numbers);
  auto const batch = random_batch(numbers);
  auto const num_seqs = static_cast<std::int32_t>(batch.size());
  auto step = b.stack.begin(batch);
  REQUIRE(step.state().ok());
  for_each_host_system([&](auto const& system) {
    CAPTURE(system.name);
    auto const of_k = fill(system, b.input(batch, k_column)),
               of_v = fill(system, b.input(batch, v_column));
    REQUIRE(of_k.ok());
    REQUIRE(of_v.ok());
    for (layer_id l{0}; l.index < model.num_layers(); ++l.index) {
      if (!b.classes[l].has_kv) continue;
      auto const view = *step.view(l);
      auto const k_runs = step.k_writers(l), v_runs = step.v_writers(l);
      check_layer(l, num_seqs, *of_k, view.k.row_of,
                  k_runs.empty() ? nullptr : &k_runs[0].destination());
      check_layer(l, num_seqs, *of_v, view.v.row_of,
                  v_runs.empty() ? nullptr : &v_runs[0].destination());
    }
  });
}

}  // namespace

TEST_CASE_TEMPLATE("the tables are those of the host's steps", S,
                   strata::contiguous_storage<strata::f32_codec>,
                   strata::paged_storage<strata::f32_codec>,
                   strata::borrowed_storage<strata::f32_codec>) {
  using namespace support;
  auto const mixed = repeated(
      "mixed", 10, {full_attention(), linear_attention(), local_attention(), full_attention()});
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    check_against_steps<S>(uniform_model(9), seed);
    check_against_steps<S>(mixed, seed + 1000);
  }
}

TEST_CASE("tables of any numbers are those of a loop") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
      CAPTURE(seed);
      CHECK(check_row_tables(system, seed) == "");
    }
  });
}

TEST_CASE("by slot, the tensors of a sequence lie one behind the other") {
  auto const plan = *make_plan(strata::leader_set(6, {0, 2, 3}));
  std::vector<std::int32_t> read(6), write(6);
  REQUIRE(bulk::fill_plan_tables(plan, v_column, bulk::tensors_by::slot, read, write).ok());
  CHECK(read == std::vector<std::int32_t>{0, 0, 1, 2, 2, 2});
  CHECK(write == std::vector<std::int32_t>{0, -1, 1, 2, -1, -1});
  read.pop_back();
  CHECK(bulk::fill_plan_tables(plan, v_column, bulk::tensors_by::slot, read, write) ==
        status{errc::value_too_small, {}, 5, 6});
}

TEST_CASE("rows are ordered from the deepest, equal ones as they were") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
      CAPTURE(seed);
      CHECK(check_order(system, seed) == "");
    }
  });
}

TEST_CASE("of nested leaders, those who store a layer come first") {
  std::vector<strata::route_plan> const plans = {
      *make_plan(strata::leader_set(8, {0})), *make_plan(strata::leader_set(8, {0, 4})),
      *make_plan(strata::leader_set(8, {0, 2, 4, 6})),
      *make_plan(strata::leader_set(8, {0, 1, 2, 3, 4, 6}))};
  number_stream numbers(5);
  for_each_host_system([&](auto const& system) {
    std::vector<std::int32_t> plan_of(200), depths(200), order(200);
    for (std::size_t i = 0; i < 200; ++i) {
      plan_of[i] = numbers.below(4);
      depths[i] = plans[as_size(plan_of[i])].k_slots;
    }
    REQUIRE(bulk::order_by_depth(system.policy, depths, order).ok());
    for (layer_id l{0}; l.index < 8; ++l.index)
      CHECK(std::is_partitioned(order.begin(), order.end(), [&](std::int32_t i) {
        return plans[as_size(plan_of[as_size(i)])][l].k.stored;
      }));
  });
}

TEST_CASE("tables that cannot be are refused") {
  std::vector<std::int32_t> const table(4);
  std::vector<std::int32_t> rows(8, -9), depths(8);
  std::vector<bulk::sequence_rows> const sequences(4);
  for_each_host_system([&](auto const& system) {
    auto const fill_rows = [&](bulk::plan_tables const& plans, bulk::row_numbers const& numbers) {
      return bulk::fill_row_tables(system.policy, plans, sequences, numbers, rows, rows);
    };
    auto const* const at = table.data();
    CHECK(fill_rows({at, at, -1, 2}, {}) == status{errc::value_too_small, {}, -1, 0});
    CHECK(fill_rows({at, at, 1, -2}, {}) == status{errc::value_too_small, {}, -2, 0});
    CHECK(fill_rows({at, nullptr, 1, 2}, {}) == null_pointer(tensor::row_table));
    CHECK(fill_rows({at, at, 1, 3}, {}) == status{errc::value_too_small, {}, 8, 12});
    CHECK(fill_rows({at, at, 1, 2}, {at, -1}).code == errc::value_too_small);
    CHECK(fill_rows({at, at, 1, 2}, {nullptr, 0, at, -1}).code == errc::value_too_small);
    CHECK(bulk::order_by_depth(system.policy, depths, std::span(rows).first(7)) ==
          status{errc::value_too_small, {}, 7, 8});
    CHECK(rows == std::vector<std::int32_t>(8, -9));
  });
}
