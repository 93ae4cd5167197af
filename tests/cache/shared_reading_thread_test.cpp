// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What several threads may do at once with one object: everything that is const. They all get what one
// thread gets, and a thread sanitizer finds nothing.
#include <doctest/doctest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/cache/snapshot.hpp>
#include <strata/map/engine_forms.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/planner.hpp>
#include <strata/map/strategy.hpp>
#include <strata/stack.hpp>

#include "support/models.hpp"
#include "support/print.hpp"
#include "support/saved_sequences.hpp"

using namespace support::snapshots;
using strata::layer_id;
using strata::sequence_id;

namespace {

/// What each of four threads gets, calling some times at the same time as the others.
template <class Call>
auto on_threads(Call const& call) {
  std::vector<decltype(call())> got(4);
  std::vector<std::thread> threads;
  for (auto& mine : got)
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) mine = call();
    });
  for (auto& t : threads) t.join();
  return got;
}

/// That all of them get what one does.
template <class Call>
void check_shared(Call const& call) {
  auto const expected = call();
  for (auto const& got : on_threads(call)) CHECK(got == expected);
}

using storage_type = strata::paged_storage<strata::fp8_codec, strata::int8_codec>;
using index_type = strata::prefix_index<storage_type>;
using numbers = std::vector<std::int64_t>;

/// Everything that is const of a storage's sequence, as numbers.
numbers all_of(storage_type const& storage, sequence_id id) {
  numbers all = {storage.length(id),
                 storage.next_position(id),
                 storage.approximate(id),
                 storage.check_idle(id).ok(),
                 storage.check_exact(id).ok(),
                 storage.check_room(1, 1, 1).ok(),
                 storage.free_k_blocks(),
                 storage.free_v_blocks(),
                 storage.allocated_bytes(),
                 storage.positions().stride,
                 static_cast<std::int64_t>(storage.table_version(id)),
                 static_cast<std::int64_t>(storage.tables().k_blocks.size())};
  for (auto const position : storage.token_positions(id)) all.push_back(position);
  for (layer_id l{0}; l.index < saved_layers; ++l.index) {
    if (!storage.plan(id)[l].k.stored) continue;
    auto const first = storage.first_token(id, l, strata::tensor::k);
    all.insert(all.end(), {first, storage.k_row(id, l), storage.v_row(id, l)});
    all.push_back(static_cast<std::int64_t>(storage.k_head_scales(l)[0] * 1024));
    auto const read = storage.for_bytes(id, l, strata::tensor::k, first, storage.length(id),
                                        [&](std::span<std::byte const> bytes) {
                                          for (auto const b : bytes)
                                            all.push_back(std::to_integer<std::int64_t>(b));
                                        });
    all.push_back(read.ok());
  }
  return all;
}

}  // namespace

TEST_CASE("threads: a storage is read by many at once") {
  auto storage = make<storage_type>();
  std::vector<sequence_id> const ids = {*storage.open(full()), *storage.open(shared())};
  grow(storage, ids[0], 10);
  grow(storage, ids[1], 6, 3);
  auto const& read = storage;
  for (auto const id : ids) check_shared([&] { return all_of(read, id); });
}

// Into outputs of their own; with executors of their own, since a pool serves one call.
TEST_CASE("threads: a step's layer is attended by many at once") {
  auto storage = make<storage_type>();
  auto const id = *storage.open(shared());
  grow(storage, id, 10);
  strata::stack server(std::move(storage), strata::reference_attention{});
  auto step = server.begin({id, 2});
  REQUIRE(step.state().ok());
  std::vector<float> const rows(2 * 2 * 33, 0.5F);
  for (layer_id const l : {layer_id{0}, layer_id{1}}) {
    step.k_writers(l)[0].store_all(rows.data());
    step.v_writers(l)[0].store_all(rows.data());
  }
  for (layer_id const l : {layer_id{0}, layer_id{1}, layer_id{3}})
    check_shared([&] {
      std::vector<float> out(2 * 2 * 33);
      strata::layer_queries<float> const queries{.q = rows.data(), .out = out.data(), .q_heads = 2};
      strata::serial_executor here;
      std::vector<std::byte> workspace(
          static_cast<std::size_t>(*step.workspace_bytes(l, queries, 1)));
      bool const done = step.attend(here, l, queries, workspace).ok();
      std::vector<std::uint32_t> bits;  // any bytes may be NaN
      for (auto const x : out) bits.push_back(std::bit_cast<std::uint32_t>(x));
      return std::pair{done && bits[0] != 0, bits};
    });
  CHECK(step.commit().ok());
}

TEST_CASE("threads: a snapshot is saved by many at once") {
  auto storage = make<storage_type>();
  std::vector<sequence_id> const ids = {*storage.open(full()), *storage.open(shared())};
  grow(storage, ids[0], 10);
  auto const& read = storage;
  check_shared([&] {
    std::vector<std::byte> file(static_cast<std::size_t>(*strata::snapshot_bytes(read, ids)));
    strata::memory_sink sink(file);
    bool const written = strata::save(read, ids, {42}, sink).ok();
    return std::pair{written, file};
  });
}

TEST_CASE("threads: one file is restored into many storages at once") {
  auto const from = [] {
    auto storage = make<storage_type>();
    auto const id = *storage.open(full());
    grow(storage, id, 10);
    return saved(storage, {id});
  }();
  check_shared([&] {
    auto to = *storage_type::make(classes(), {4, 30, 4, 90, 90}, {}, scales_of<storage_type>());
    sequence_id got[1];
    auto const count = strata::restore(to, from, {42}, got);
    return count.ok() ? all_of(to, got[0]) : numbers{};
  });
}

TEST_CASE("threads: an index is asked by many at once") {
  auto storage = make<storage_type>();
  auto const id = *storage.open(full());
  grow(storage, id, 6);  // less than the window: it holds all of its blocks
  auto index = *index_type::make(storage, {8, 2});
  std::vector<std::int32_t> const tokens = {1, 2, 3, 4, 5, 6};
  REQUIRE(*index.insert(storage, id, tokens, {}) == 1);
  index_type const& asked = index;
  check_shared([&] {
    auto const known = asked.find(tokens, full(), {});
    auto const fewer = asked.find(tokens, shared(), {}, strata::reuse::subset);
    auto const other = asked.find(tokens, full(), {.model = 1});
    return numbers{known.num_tokens, fewer.num_tokens, other.num_tokens, asked.size()};
  });
  CHECK(asked.find(tokens, full(), {}).num_tokens == 4);
}

TEST_CASE("threads: maps, plans and planners are asked by many at once") {
  auto const classes = support::gemma_like(14).classes();
  auto const map = *strata::parse_strategy("groups:5,6,3", classes);
  strata::leader_set const set(14, {0, 5, 8});
  auto const plan = *make_plan(map, classes);
  std::vector<std::int64_t> const bytes(14, 100);
  strata::planner_goals const goals{.budget = 700, .width = 64};
  REQUIRE(strata::choose_leaders(classes, bytes, goals).ok());
  check_shared([&] {
    std::int32_t index[14] = {};
    numbers all = {
        check(map, classes).ok(),          check(plan, classes, strata::use::serving).ok(),
        strata::num_leaders(map, classes), strata::forms::to_reuse_index(map, classes, index).ok(),
        make_plan(map, classes)->k_slots,  make_plan(set)->k_slots};
    for (layer_id l{0}; l.index < 14; ++l.index)
      all.insert(all.end(), {map.source(l).index, set.source(l).index, plan[l].k.source.index,
                             index[l.index]});
    auto const choice = strata::choose_leaders(classes, bytes, goals);
    if (!choice.ok()) return numbers{};
    all.insert(all.end(), {choice->bytes, choice->leaders.size()});
    return all;
  });
}
