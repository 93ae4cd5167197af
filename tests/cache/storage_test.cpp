// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Storages keep books: what a call grants, what it refuses, and that a refusal, or a reservation
// that is abandoned, leaves no trace (law 10).
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include <strata/map/identity_map.hpp>
#include <strata/map/table_map.hpp>

#include "support/print.hpp"
#include "support/storage_types.hpp"

using strata::errc;
using strata::growth;
using strata::route_plan;
using strata::sequence_id;
using strata::status;

namespace {

strata::kv_classes four_uneven_layers() {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 2, .k_dim = 5, .v_dim = 3};
  return strata::kv_classes::uniform(4, kind);
}

/// 2 of 4 layers store K, 3 store V.
route_plan uneven_plan() {
  std::int32_t const k[] = {0, 0, 2, 2}, v[] = {0, 1, 2, 2};
  return *make_plan(*strata::table_map::make(k), *strata::table_map::make(v), four_uneven_layers());
}
route_plan full_plan() { return *make_plan(strata::identity_map(4), four_uneven_layers()); }

/// A storage over guarded memory with two sequences in it: 5 tokens without gaps, and 3 tokens at
/// the positions 0, 7 and 8.
template <class S>
struct guarded_storage {
  support::storage_room room{
      .max_sequences = 3, .max_tokens = 8, .k_tensors = 7, .v_tensors = 8, .block_size = 2};
  support::guarded_memory memory = support::memory_for<S>(four_uneven_layers(), room);
  S storage = support::make_storage<S>(four_uneven_layers(), room, memory.borrow());
  sequence_id shared = *storage.open(uneven_plan());
  sequence_id full = *storage.open(full_plan());

  guarded_storage() {
    grow({{shared, 5}, {full, 1}});
    grow({{full, 2, 7}});
  }
  void grow(std::vector<growth> const& growths) {
    REQUIRE(storage.reserve(growths).ok());
    storage.commit();
  }
  support::storage_state state() { return state_of(storage, {shared, full}, memory); }
};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("committed tokens count, reserved ones do not", S, storage_books) {
  guarded_storage<S> f;
  CHECK(f.storage.length(f.shared) == 5);
  CHECK(f.storage.next_position(f.shared) == 5);
  CHECK(f.storage.length(f.full) == 3);
  CHECK(f.storage.next_position(f.full) == 9);

  growth const more[] = {{f.shared, 2}, {f.full, 1, 20}};
  REQUIRE(f.storage.reserve(more).ok());
  CHECK(f.storage.length(f.shared) == 5);
  CHECK(f.storage.next_position(f.full) == 9);
  f.storage.commit();
  CHECK(f.storage.length(f.shared) == 7);
  CHECK(f.storage.next_position(f.shared) == 7);
  CHECK(f.storage.length(f.full) == 4);
  CHECK(f.storage.next_position(f.full) == 21);
  CHECK(f.memory.guards_intact());
}
TEST_CASE_TEMPLATE_APPLY(storage_books, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("a refused reserve changes nothing", S, storage_refusals) {
  guarded_storage<S> f;
  auto const before = f.state();
  struct refusal {
    std::vector<growth> growths;
    status expected;
  };
  // The good growth comes first: what it would have taken must not stay taken.
  growth const good{f.shared, 2};
  sequence_id const closed{2}, nowhere{3};
  refusal const refusals[] = {
      {{good, {closed, 1}}, {errc::unknown_sequence, {}, 2, 2}},
      {{good, {nowhere, 1}}, {errc::unknown_sequence, {}, 3, 2}},
      {{good, {sequence_id{INT32_MAX}, 1}}, {errc::unknown_sequence, {}, INT32_MAX, 2}},
      {{good, {strata::no_sequence, 1}}, {errc::unknown_sequence, {}, -1, 2}},
      {{good, {f.full, 0}, good}, {errc::duplicate_sequence, {}, f.shared.index, 1}},
      {{good, {f.full, -1}}, {errc::bad_new_tokens, {}, -1, 0}},
      {{good, {f.full, 6}}, {errc::sequence_full, {}, 9, 8}},
      {{good, {f.full, INT32_MAX}}, {errc::sequence_full, {}, 3LL + INT32_MAX, 8}},
      {{good, {f.full, 1, 8}}, {errc::position_not_ahead, {}, 8, 9}},
      {{good, {f.full, 1, -2}}, {errc::position_not_ahead, {}, -2, 9}},
      {{good, {f.full, 2, INT32_MAX - 1}},
       {errc::position_too_large, {}, 1LL + INT32_MAX, INT32_MAX}},
  };
  for (auto const& r : refusals) {
    CHECK(f.storage.reserve(r.growths) == r.expected);
    CHECK(f.state() == before);
  }
  f.grow({good});  // and the storage is as good as before
  CHECK(f.storage.length(f.shared) == 7);
}
TEST_CASE_TEMPLATE_APPLY(storage_refusals, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("during a step nothing else begins", S, storage_one_step) {
  guarded_storage<S> f;
  growth const more[] = {{f.shared, 3}};
  REQUIRE(f.storage.reserve(more).ok());
  auto const during = f.state();
  growth const other[] = {{f.full, 1}};
  status const busy{errc::step_in_progress};
  CHECK(f.storage.reserve(other) == busy);
  CHECK(f.storage.reserve({}) == busy);
  CHECK(f.storage.open(full_plan()).state() == busy);
  CHECK(f.storage.close(f.full) == busy);
  CHECK(f.state() == during);
  f.storage.commit();
  CHECK(f.storage.length(f.shared) == 8);
  CHECK(f.storage.close(f.full).ok());
}
TEST_CASE_TEMPLATE_APPLY(storage_one_step, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("abandon restores exactly", S, storage_abandons) {
  guarded_storage<S> f;
  auto const before = f.state();
  std::vector<growth> const steps[] = {
      {{f.shared, 3}},
      {{f.full, 5}, {f.shared, 3}},
      {{f.shared, 1}, {f.full, 1, 100}},
      {{f.shared, 1, 6}},  // the first gap of a sequence that had none
      {{f.shared, 0}, {f.full, 0, 50}},
      {},
  };
  for (auto const& growths : steps) {
    CAPTURE(growths.size());
    REQUIRE(f.storage.reserve(growths).ok());
    auto const reserved = f.state();
    f.storage.abandon();
    CHECK(f.state() == before);
    // The free blocks lie in the order in which they lay: the same step gets the same ones.
    REQUIRE(f.storage.reserve(growths).ok());
    CHECK(f.state() == reserved);
    f.storage.abandon();
    CHECK(f.state() == before);
  }
}
TEST_CASE_TEMPLATE_APPLY(storage_abandons, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("commit and abandon without a step do nothing", S, storage_idle) {
  guarded_storage<S> f;
  auto const before = f.state();
  f.storage.abandon();
  f.storage.commit();
  CHECK(f.state() == before);
}
TEST_CASE_TEMPLATE_APPLY(storage_idle, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("open and close refuse what is not there", S, storage_doors) {
  guarded_storage<S> f;
  auto const before = f.state();
  CHECK(f.storage.close({2}) == status{errc::unknown_sequence, {}, 2, 2});
  CHECK(f.storage.close({-1}) == status{errc::unknown_sequence, {}, -1, 2});
  auto const shallow = *make_plan(strata::identity_map(3));
  CHECK(f.storage.open(shallow).state() == status{errc::plan_mismatch, {}, 3, 4});
  CHECK(f.state() == before);

  auto const third = f.storage.open(full_plan());
  REQUIRE(third.ok());
  CHECK(third->index == 2);
  CHECK(f.storage.open(full_plan()).state() == status{errc::too_many_sequences, {}, 3, 3});
  CHECK(f.storage.length(*third) == 0);
  CHECK(f.storage.next_position(*third) == 0);
}
TEST_CASE_TEMPLATE_APPLY(storage_doors, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("a closed sequence gives all of its room back", S, storage_closes) {
  guarded_storage<S> f;
  S const fresh = support::make_storage<S>(four_uneven_layers(), f.room);
  CHECK(f.storage.close(f.full).ok());
  CHECK(f.storage.positions().data == nullptr);  // the gaps went with it
  CHECK(f.storage.close(f.shared).ok());
  CHECK(f.storage.free_k_blocks() == fresh.free_k_blocks());
  CHECK(f.storage.free_v_blocks() == fresh.free_v_blocks());
  CHECK(f.storage.close(f.full) == status{errc::unknown_sequence, {}, f.full.index, 0});

  auto const again = f.storage.open(full_plan());  // the id of the first is used again, from zero
  REQUIRE(again.ok());
  CHECK(*again == f.shared);
  CHECK(f.storage.length(*again) == 0);
  CHECK(f.storage.next_position(*again) == 0);
  CHECK(f.storage.plan(*again) == full_plan());
}
TEST_CASE_TEMPLATE_APPLY(storage_closes, support::all_storages);

// Positions are a table only where a mask could tell the difference.
TEST_CASE("positions appear with the first gap, the step's own included") {
  guarded_storage<strata::paged_storage<strata::f32_codec>> f;
  CHECK(f.storage.close(f.full).ok());
  REQUIRE(f.storage.positions().data == nullptr);
  growth const gap[] = {{f.shared, 2, 9}};
  REQUIRE(f.storage.reserve(gap).ok());
  auto const table = f.storage.positions();
  REQUIRE(table.data != nullptr);
  std::int32_t const expected[] = {0, 1, 2, 3, 4, 9, 10};
  for (std::int32_t t = 0; t < 7; ++t)
    CHECK(table.data[f.shared.index * table.stride + t] == expected[t]);
  f.storage.abandon();
  CHECK(f.storage.positions().data == nullptr);

  growth const no_tokens[] = {{f.shared, 0, 30}};
  f.grow({no_tokens[0]});
  CHECK(f.storage.positions().data == nullptr);
  CHECK(f.storage.next_position(f.shared) == 5);

  growth const last[] = {
      {f.shared, 1, INT32_MAX - 1}};  // the greatest position that has a next one
  REQUIRE(f.storage.reserve(last).ok());
  f.storage.commit();
  CHECK(f.storage.next_position(f.shared) == INT32_MAX);
  growth const beyond[] = {{f.shared, 1}};
  CHECK(f.storage.reserve(beyond) ==
        status{errc::position_too_large, {}, 1LL + INT32_MAX, INT32_MAX});
}
