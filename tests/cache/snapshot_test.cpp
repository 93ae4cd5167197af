// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences written down and taken up again: the same bytes in storages of another kind, in blocks of
// any length, and what is refused before anything changes.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include <strata/cache/prefix_index.hpp>

#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/saved_sequences.hpp"

using namespace support::snapshots;
using strata::errc;
using strata::layer_id;
using strata::sequence_id;

namespace {

using snapshot_storage_pairs = std::tuple<
    std::pair<strata::paged_storage<strata::f32_codec>, strata::paged_storage<strata::f32_codec>>,
    std::pair<strata::contiguous_storage<strata::bf16_codec, strata::int8_codec>,
              strata::paged_storage<strata::bf16_codec, strata::int8_codec>>,
    std::pair<strata::paged_storage<strata::fp8_codec, strata::q8_0_codec>,
              strata::contiguous_storage<strata::fp8_codec, strata::q8_0_codec>>,
    std::pair<strata::paged_storage<strata::int8_codec, strata::fp8_codec>,
              strata::paged_storage<strata::int8_codec, strata::fp8_codec>>>;

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("sequences come back as they were, in blocks of any length", Pair,
                          back_from_snapshot) {
  using from_type = typename Pair::first_type;
  using to_type = typename Pair::second_type;
  auto from = make<from_type>();
  auto const ids = open_four(from);
  auto const file = saved(from, ids);
  for (auto const block_size : {4, 3, 7, 30}) {
    auto to = make<to_type>(block_size);
    std::vector<sequence_id> got(4);
    auto const count = strata::restore(to, file, {42}, got);
    REQUIRE(count.ok());
    CHECK(*count == 4);
    for (std::size_t i = 0; i < 4; ++i) CHECK(same_sequence(from, ids[i], to, got[i]));
    // They go on like any other, and what is saved again is the same file.
    if (block_size == 4 && support::is_paged<from_type> == support::is_paged<to_type>)
      CHECK(saved(to, got) == file);
    grow(to, got[1], 3);
    for (auto const id : got) CHECK(to.close(id).ok());
    auto const fresh = make<to_type>(block_size);
    CHECK(is_empty(to, fresh.free_k_blocks(), fresh.free_v_blocks()));
  }
}
TEST_CASE_TEMPLATE_APPLY(back_from_snapshot, snapshot_storage_pairs);

TEST_CASE("a snapshot under a smaller plan says that it is approximate") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  auto from = make<storage_type>();
  std::vector<sequence_id> const ids = {*from.open(full()), *from.open(shared())};
  for (auto const id : ids) grow(from, id, 10);
  auto const file = saved(from, ids);
  auto to = make<storage_type>();
  std::vector<sequence_id> got(2);
  CHECK(strata::restore_subset(to, file, {42}, full(), got).state() ==
        strata::status{errc::not_a_subset, {3}});
  CHECK(is_empty(to, 12 * 8, 12 * 8));
  REQUIRE(strata::restore_subset(to, file, {42}, shared(), got).ok());
  CHECK(to.approximate(got[0]));
  CHECK(!to.approximate(got[1]));  // it was its own plan
  REQUIRE(from.shrink(ids[0], shared()).ok());
  for (std::size_t i = 0; i < 2; ++i) CHECK(same_sequence(from, ids[i], to, got[i]));
  // What is approximate stays so when it is saved again.
  auto again = make<storage_type>();
  REQUIRE(strata::restore(again, saved(to, got), {42}, got).ok());
  CHECK(again.approximate(got[0]));
}

// Tokens from 24 on are there of the layer with a window; a block of 16 that holds them begins at 16.
TEST_CASE("in longer blocks a sequence has no more tokens than it brought") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  auto from = make<storage_type>(4);
  sequence_id const ids[] = {*from.open(full())};
  grow(from, ids[0], 30);
  auto to = make<storage_type>(16);
  sequence_id got[1];
  REQUIRE(strata::restore(to, saved(from, {ids[0]}), {42}, got).ok());
  CHECK(to.first_token(got[0], {1}, strata::tensor::k) == 24);
  auto const refused = to.truncate(got[0], 29);
  CHECK(refused == from.truncate(ids[0], 29));
  CHECK(refused == strata::status{errc::window_let_go, {1}, 23, 24});
  CHECK(to.for_bytes(got[0], {1}, strata::tensor::k, 16, 30, [](auto) {}).code ==
        errc::value_too_small);
  // Saved again, it says the same; nor is a block learnt that is not whole.
  CHECK(saved(to, {got[0]}) == saved(from, {ids[0]}));
  auto index = *strata::prefix_index<storage_type>::make(to, {8, 1});
  std::vector<std::int32_t> const tokens(30);
  CHECK(*index.insert(to, got[0], tokens, {}) == 1);
  CHECK(index.find(tokens, full(), {}).num_tokens == 0);
  CHECK(to.truncate(got[0], 0).ok());
  CHECK(to.first_token(got[0], {1}, strata::tensor::k) == 0);
}

// A file whose checksums are right can still lie.
TEST_CASE("bytes are there of what is stored and held") {
  auto storage = make<small_type>();
  auto const id = *storage.open(only_v());
  grow(storage, id, 17);
  auto const code = [&](layer_id l, strata::tensor which, std::int32_t begin, std::int32_t end) {
    return storage.for_bytes(id, l, which, begin, end, [](auto) {});
  };
  CHECK(code({0}, strata::tensor::k, 0, 17).ok());
  CHECK(code({0}, strata::tensor::k, 0, 18) == strata::status{errc::value_too_large, {0}, 18, 17});
  CHECK(code({0}, strata::tensor::k, -1, 1).code == errc::value_too_small);
  CHECK(code({0}, strata::tensor::k, 5, 4).code == errc::value_too_small);
  CHECK(code({3}, strata::tensor::k, 0, 1) == strata::status{errc::layer_stores_nothing, {3}});
  CHECK(code({3}, strata::tensor::v_scales, 0, 1).ok());
  CHECK(code({4}, strata::tensor::k, 0, 1).code == errc::layer_out_of_range);
  CHECK(code({-1}, strata::tensor::k, 0, 1).code == errc::layer_out_of_range);
  CHECK(code({1}, strata::tensor::k, 7, 17) == strata::status{errc::value_too_small, {1}, 7, 8});
  CHECK(storage.for_bytes({2}, {0}, strata::tensor::k, 0, 0, [](auto) {}).code ==
        errc::unknown_sequence);
}

TEST_CASE("too little room is told before anything changes") {
  auto const file = small_file();
  std::vector<sequence_id> got(2);
  // Ten tokens of K of 2 layers and V of 3, three of 3 and 3, in blocks of four: the window of 7
  // needs tokens from 4 on.
  auto tight = *small_type::make(classes(), {4, 30, 4, 3 + 2 + 3, 3 + 2 + 3 + 3});
  REQUIRE(strata::restore(tight, file, {42}, got).ok());
  CHECK(tight.free_k_blocks() == 0);
  CHECK(tight.free_v_blocks() == 0);
  auto const refusal = [&](strata::paged_options const& options, std::size_t ids = 2) {
    auto storage = *small_type::make(classes(), options);
    auto const outcome = strata::restore(storage, file, {42}, std::span(got).first(ids)).state();
    CHECK(is_empty(storage, options.k_blocks, options.v_blocks));
    return outcome;
  };
  CHECK(refusal({4, 30, 4, 7, 11}) ==
        strata::status{errc::out_of_k_blocks, strata::no_layer, 1, 7});
  CHECK(refusal({4, 30, 4, 8, 9}) == strata::status{errc::out_of_v_blocks, strata::no_layer, 2, 9});
  CHECK(refusal({4, 9, 4, 8, 11}) == strata::status{errc::sequence_full, strata::no_layer, 10, 9});
  CHECK(refusal({1, 30, 4, 8, 11}).code == errc::too_many_sequences);
  CHECK(refusal({4, 30, 4, 8, 11}, 1) ==
        strata::status{errc::value_too_large, strata::no_layer, 2, 1});
}

TEST_CASE("what cannot be saved") {
  auto storage = make<small_type>();
  auto const id = *storage.open(full());
  sequence_id const unknown[] = {id, {3}};
  CHECK(strata::snapshot_bytes(storage, unknown).state().code == errc::unknown_sequence);
  sequence_id const ids[] = {id};
  std::vector<std::byte> memory(static_cast<std::size_t>(*strata::snapshot_bytes(storage, ids)) -
                                1);
  strata::memory_sink sink(memory);
  CHECK(strata::save(storage, ids, {}, sink).code == errc::memory_too_small);
  strata::growth const g{id, 2};
  REQUIRE(storage.reserve({&g, 1}).ok());
  CHECK(strata::snapshot_bytes(storage, ids).state().code == errc::step_in_progress);
  storage.abandon();
}
