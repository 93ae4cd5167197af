// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where storages live: memory of their own or of somebody else, and sizes that no memory has.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <strata/cache/footprint.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>

#include "support/print.hpp"
#include "support/storage_types.hpp"

using strata::errc;
using strata::growth;
using strata::status;
using support::storage_room;

// A size that cannot be had is an answer here, not the end of the program.
extern "C" char const* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace {

strata::kv_classes odd_sizes() {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 3, .k_dim = 7, .v_dim = 5};
  return strata::kv_classes::uniform(4, kind);
}

template <class Options>
errc outcome_of_make(Options const& options, strata::kv_classes const& classes = odd_sizes()) {
  if constexpr (std::is_same_v<Options, strata::paged_options>)
    return strata::paged_storage<strata::f64_codec>::make(classes, options).state().code;
  else
    return strata::contiguous_storage<strata::f64_codec>::make(classes, options).state().code;
}

bool is_refusal_of_size(errc code) {
  return code == errc::size_overflow || code == errc::out_of_memory;
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("borrowed memory: exactly enough is used, a byte less refused", S,
                          storage_borrows) {
  storage_room const room{.max_sequences = 2, .max_tokens = 9, .k_tensors = 6, .v_tensors = 5};
  auto memory = support::memory_for<S>(odd_sizes(), room);
  auto const lent = memory.borrow();
  auto const make = [&](strata::borrowed_memory const& given) {
    return S::make(odd_sizes(), support::options_of<S>(room), given).state();
  };
  auto const k = static_cast<std::int64_t>(lent.k.size());
  auto const v = static_cast<std::int64_t>(lent.v.size());
  CHECK(make(lent).ok());
  CHECK(make({lent.k.first(lent.k.size() - 1), lent.v}) ==
        status{errc::memory_too_small, {}, k - 1, k});
  CHECK(make({lent.k, lent.v.first(lent.v.size() - 1)}) ==
        status{errc::memory_too_small, {}, v - 1, v});
  CHECK(make({lent.k.subspan(4), lent.v}) == status{errc::memory_misaligned, {}, 4, 64});
  CHECK(make({lent.k, lent.k}).code == errc::memory_overlaps);
  CHECK(make({{}, lent.v}).ok());  // K in memory of its own

  auto const own = support::make_storage<S>(odd_sizes(), room);
  CHECK(own.allocated_bytes() == k + v);
}
TEST_CASE_TEMPLATE_APPLY(storage_borrows, support::all_storages);

TEST_CASE("more tensors than 32 bits count become the most that they do") {
  strata::route_plan plan;
  plan.k_slots = 256, plan.v_slots = 1;
  auto const options = strata::contiguous_options::for_plan(plan, 1 << 23, 4);
  CHECK(options.max_sequences == 1 << 23);
  CHECK(options.k_tensors == 0x7FFFFFFF);
  CHECK(options.v_tensors == 1 << 23);
  CHECK(strata::contiguous_options::for_plan(plan, (1 << 23) - 1, 4).k_tensors == 0x7FFFFF00);
}

TEST_CASE_TEMPLATE_DEFINE("a storage writes nothing into memory that it borrows", S,
                          storage_leaves_memory) {
  storage_room const room{.max_sequences = 2, .max_tokens = 9, .k_tensors = 6, .v_tensors = 6};
  auto memory = support::memory_for<S>(odd_sizes(), room);
  {
    auto storage = support::make_storage<S>(odd_sizes(), room, memory.borrow());
    auto const id = *storage.open(*make_plan(strata::grouped_map(4, 2)));
    growth const grow[] = {{id, 9}};
    REQUIRE(storage.reserve(grow).ok());
    storage.commit();
    CHECK(storage.k_blocks({0}).data == memory.borrow().k.data());
    CHECK(storage.v_blocks({0}).data == memory.borrow().v.data());
    CHECK(storage.close(id).ok());
  }
  for (auto const side : {memory.borrow().k, memory.borrow().v})
    for (auto const x : side) REQUIRE(x == std::byte{0xA5});
  CHECK(memory.guards_intact());
}
TEST_CASE_TEMPLATE_APPLY(storage_leaves_memory, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("a moved storage is the same storage", S, storage_moves) {
  static_assert(!std::is_copy_constructible_v<S> && !std::is_copy_assignable_v<S>);
  static_assert(std::is_nothrow_move_constructible_v<S> && std::is_nothrow_move_assignable_v<S>);
  storage_room const room{.max_sequences = 2, .max_tokens = 9, .k_tensors = 8, .v_tensors = 8};
  auto memory = support::memory_for<S>(odd_sizes(), room);
  auto first = support::make_storage<S>(odd_sizes(), room, memory.borrow());
  auto const id = *first.open(*make_plan(strata::identity_map(4)));
  growth const grow[] = {{id, 5, 3}};
  REQUIRE(first.reserve(grow).ok());
  first.commit();
  auto const before = state_of(first, {id}, memory);
  S second = std::move(first);
  CHECK(state_of(second, {id}, memory) == before);
  S third = support::make_storage<S>(odd_sizes(), room);
  third = std::move(second);
  CHECK(state_of(third, {id}, memory) == before);
}
TEST_CASE_TEMPLATE_APPLY(storage_moves, support::all_storages);

TEST_CASE("options that mean nothing are refused by name") {
  using strata::contiguous_options;
  using strata::paged_options;
  CHECK(outcome_of_make(contiguous_options{0, 8, 4, 4}) == errc::bad_max_sequences);
  CHECK(outcome_of_make(contiguous_options{-1, 8, 4, 4}) == errc::bad_max_sequences);
  CHECK(outcome_of_make(contiguous_options{1, 0, 4, 4}) == errc::bad_max_tokens);
  CHECK(outcome_of_make(contiguous_options{1, 8, 0, 4}) == errc::bad_num_blocks);
  CHECK(outcome_of_make(contiguous_options{1, 8, 4, -5}) == errc::bad_num_blocks);
  CHECK(outcome_of_make(paged_options{1, 8, 0, 4, 4}) == errc::bad_block_size);
  CHECK(outcome_of_make(paged_options{1, 8, -16, 4, 4}) == errc::bad_block_size);
  CHECK(outcome_of_make(paged_options{1, 8, 16, 4, 0}) == errc::bad_num_blocks);
  CHECK(outcome_of_make(paged_options{1, 8, 16, 4, 4}, strata::kv_classes{}) == errc::no_layers);
  CHECK(outcome_of_make(paged_options{1, 8, 16, 4, 4}, strata::kv_classes::uniform(257)) ==
        errc::too_many_layers);
}

TEST_CASE("sizes beyond all memory are an answer, not an overflow") {
  using strata::contiguous_options;
  using strata::paged_options;
  strata::layer_kind largest;
  largest.kv = {.kv_heads = 65536, .k_dim = 65536, .v_dim = 65536};
  auto const huge = strata::kv_classes::uniform(strata::max_layers, largest);

  // Positions alone would be 8 TB: with fewer sequences they could be had, and it would take long.
  CHECK(is_refusal_of_size(outcome_of_make(contiguous_options{1024, INT32_MAX, 1, 1})));
  CHECK(is_refusal_of_size(
      outcome_of_make(contiguous_options{INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX})));
  CHECK(is_refusal_of_size(outcome_of_make(contiguous_options{1, 8, INT32_MAX, INT32_MAX}, huge)));
  CHECK(is_refusal_of_size(outcome_of_make(contiguous_options{1, 1 << 20, 4096, 1}, huge)));
  CHECK(is_refusal_of_size(outcome_of_make(paged_options{INT32_MAX, INT32_MAX, 1, 1, 1})));
  CHECK(is_refusal_of_size(
      outcome_of_make(paged_options{INT32_MAX, 1, 1, INT32_MAX, INT32_MAX}, huge)));
  CHECK(is_refusal_of_size(outcome_of_make(paged_options{1, 8, INT32_MAX, INT32_MAX, INT32_MAX})));
  CHECK(is_refusal_of_size(outcome_of_make(paged_options{1, 8, INT32_MAX, 1, 1}, huge)));
  CHECK(is_refusal_of_size(outcome_of_make(paged_options{1, 8, 16, 1, INT32_MAX}, huge)));

  // 2^63 - 8 bytes fit 64 bits, but not when they are rounded up to 64.
  strata::layer_kind edge;
  edge.kv = {.kv_heads = 54161, .k_dim = 49981, .v_dim = 1};
  CHECK(outcome_of_make(paged_options{1, 8, 425900475, 1, 1},
                        strata::kv_classes::uniform(1, edge)) == errc::size_overflow);

  // Too large for the memory given, and the refusal says by how much.
  alignas(64) std::byte little[64];
  auto const refused = strata::paged_storage<strata::f64_codec>::make(
      odd_sizes(), {1, 8, 16, INT32_MAX, 1}, {little, {}});
  CHECK(refused.state().code == errc::memory_too_small);
  CHECK(refused.state().bound == std::int64_t{INT32_MAX} * ((16 * 3 * 7 * 8 + 63) / 64 * 64));
}

TEST_CASE("a storage allocates what the footprint says") {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 8, .k_dim = 128, .v_dim = 128};
  auto const classes = strata::kv_classes::uniform(36, kind);
  auto const plan = *make_plan(strata::grouped_map<36, 4>{}, classes);
  using storage = strata::contiguous_storage<strata::bf16_codec>;
  auto const s = storage::make(classes, strata::contiguous_options::for_plan(plan, 2, 16));
  REQUIRE(s.ok());
  CHECK(s->allocated_bytes() == 2 * 16 * 36 * 1024);
  CHECK(strata::bytes_per_token<strata::bf16_codec>(plan, classes) == 36 * 1024);
}

#if STRATA_HAS_EXCEPTIONS
TEST_CASE_TEMPLATE_DEFINE("the throwing constructor is make, spelt otherwise", S, storage_throws) {
  storage_room const room{.max_sequences = 1, .max_tokens = 4, .k_tensors = 4, .v_tensors = 4};
  S const good(odd_sizes(), support::options_of<S>(room));
  CHECK(good.max_tokens() == 4);
  auto bad = room;
  bad.max_tokens = -1;
  try {
    S const never(odd_sizes(), support::options_of<S>(bad));
    FAIL("a storage of -1 tokens was made");
  } catch (strata::error const& e) {
    CHECK(e.state().code == errc::bad_max_tokens);
  }
}
TEST_CASE_TEMPLATE_APPLY(storage_throws, support::all_storages);
#endif
