// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences that leave a storage for the host's memory and come back: as they were, into storages of
// another kind.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include <strata/cache/int4_codec.hpp>
#include <strata/cache/prefix_index.hpp>

#include "support/print.hpp"
#include "support/tiered_sequences.hpp"

using namespace support::tiered;
using strata::errc;
using strata::host_tier;
using strata::sequence_id;
using strata::tier_id;

namespace {

using tier_storage_pairs = std::tuple<
    std::pair<strata::paged_storage<strata::f64_codec>, strata::paged_storage<strata::f64_codec>>,
    std::pair<strata::paged_storage<strata::f32_codec, strata::f16_codec>,
              strata::contiguous_storage<strata::f32_codec, strata::f16_codec>>,
    std::pair<strata::contiguous_storage<strata::bf16_codec, strata::int8_codec>,
              strata::paged_storage<strata::bf16_codec, strata::int8_codec>>,
    std::pair<strata::paged_storage<strata::fp8_codec, strata::q8_0_codec>,
              strata::contiguous_storage<strata::fp8_codec, strata::q8_0_codec>>,
    std::pair<strata::paged_storage<strata::int4_codec, strata::fp8_codec>,
              strata::paged_storage<strata::int4_codec, strata::fp8_codec>>>;

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("sequences come back from the tier as they were", Pair, back_from_tier) {
  using from_type = typename Pair::first_type;
  using to_type = typename Pair::second_type;
  for (std::int32_t const page_bytes : {64, 100, 1 << 12}) {
    auto from = make<from_type>();
    auto tier = *host_tier<>::make(from, {1 << 16, 8, page_bytes});
    auto const ids = open_four(from);
    std::vector<portrait> before;
    std::vector<tier_id> away;
    for (auto const id : ids) before.push_back(of(from, id));
    std::int64_t bytes = 0;
    for (auto const id : ids) {
      auto const pages = (bytes_of_tokens(from, id) + page_bytes - 1) / page_bytes;
      CHECK(*tier.offload_bytes(from, id) == pages * page_bytes);
      bytes += pages * page_bytes;
      away.push_back(tier.offload(from, id).value());
      CHECK(from.check_idle(id).code == errc::unknown_sequence);
      CHECK(tier.allocated_bytes() - tier.free_bytes() == bytes);
    }
    auto const fresh = make<from_type>();
    CHECK(is_empty(from, fresh.free_k_blocks(), fresh.free_v_blocks()));
    CHECK(tier.size() == 4);
    auto to = make<to_type>(page_bytes == 64 ? 3 : 7);
    for (std::size_t const i : {2U, 0U, 3U, 1U}) {
      CHECK(tier.plan(away[i]) == before[i].plan);
      CHECK(tier.length(away[i]) == before[i].length);
      auto const needs = *tier.reload_needs(to, away[i]);
      auto const free_k = to.free_k_blocks(), free_v = to.free_v_blocks();
      auto const id = tier.reload(to, away[i]).value();
      CHECK(of(to, id) == before[i]);
      CHECK(free_k - to.free_k_blocks() == needs.k);
      CHECK(free_v - to.free_v_blocks() == needs.v);
      CHECK(tier.reload(to, away[i]).state().code == errc::not_in_tier);
      if (before[i].length < 25) grow(to, id, 3);  // it goes on like any other
    }
    CHECK(tier.size() == 0);
    CHECK(tier.free_bytes() == tier.allocated_bytes());
  }
}
TEST_CASE_TEMPLATE_APPLY(back_from_tier, tier_storage_pairs);

TEST_CASE("forks, shrunk sequences and windows go and come back") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  auto storage = make<storage_type>();
  auto tier = *host_tier<>::make(storage, tier_room);
  auto const parent = *storage.open(full());
  grow(storage, parent, 14);
  auto const child = *storage.fork(parent);
  grow(storage, child, 7);
  REQUIRE(storage.shrink(child, shared()).ok());
  auto const of_parent = of(storage, parent), of_child = of(storage, child);
  CHECK(of_child.approximate);
  auto const first = storage.first_token(child, {1}, strata::tensor::v);
  CHECK(first > 0);
  auto const free = storage.free_k_blocks();
  auto const away = tier.offload(storage, child).value();
  // What the parent holds, too, it keeps; layer 0 has a block and a half of the child's own.
  CHECK(storage.free_k_blocks() > free);
  CHECK(of(storage, parent) == of_parent);
  auto const parents = tier.offload(storage, parent).value();
  CHECK(is_empty(storage, 12 * 8, 12 * 8));
  auto const back = tier.reload(storage, away).value();
  CHECK(of(storage, back) == of_child);
  CHECK(storage.first_token(back, {1}, strata::tensor::v) == first);
  CHECK(of(storage, tier.reload(storage, parents).value()) == of_parent);
}

TEST_CASE("what an index of prefixes holds stays with it") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  auto storage = make<storage_type>();
  auto tier = *host_tier<>::make(storage, tier_room);
  auto index = *strata::prefix_index<storage_type>::make(storage, {8, 1});
  auto const id = *storage.open(full());
  grow(storage, id, 6);
  std::vector<std::int32_t> const tokens(6);
  REQUIRE(*index.insert(storage, id, tokens, {}) == 1);
  auto const before = of(storage, id);
  auto const away = tier.offload(storage, id).value();
  CHECK(storage.free_k_blocks() == 12 * 8 - 3);  // the first block of each layer that has K
  CHECK(index.find(tokens, full(), {}).num_tokens == 4);
  CHECK(of(storage, tier.reload(storage, away).value()) == before);
}

TEST_CASE("ids of sequences that left are not used again") {
  auto storage = make<small_type>();
  auto tier = *host_tier<>::make(storage, {1 << 16, 1, tier_page});
  auto id = *storage.open(full());
  std::vector<tier_id> seen;
  for (int i = 0; i < 5; ++i) {
    grow(storage, id, 2);
    seen.push_back(tier.offload(storage, id).value());
    for (std::size_t j = 0; j + 1 < seen.size(); ++j) {
      CHECK(tier.reload(storage, seen[j]).state().code == errc::not_in_tier);
      CHECK(tier.drop(seen[j]).code == errc::not_in_tier);
    }
    id = tier.reload(storage, seen.back()).value();
  }
  CHECK(storage.length(id) == 10);
}

TEST_CASE("blocks and pages that lie one behind the other are one copy") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  // 64 bytes a token, so that blocks have no holes.
  auto const model =
      strata::kv_classes::uniform(2, {.kv = {.kv_heads = 2, .k_dim = 8, .v_dim = 8}});
  auto storage = *storage_type::make(model, {1, 64, 4, 32, 32});
  auto const plan = *make_plan(*strata::table_map::make(std::vector<std::int32_t>{0, 0}), model);
  failing_copier::counts counts;
  failing_copier copier;
  copier.to = &counts;
  auto tier = *host_tier<failing_copier>::make(storage, {1 << 16, 1, 128}, copier);
  auto const id = *storage.open(plan);
  strata::growth const g{id, 50};
  REQUIRE(storage.reserve({&g, 1}).ok());
  storage.commit();
  auto const away = tier.offload(storage, id).value();
  CHECK(counts.copies == 2);
  REQUIRE(tier.reload(storage, away).ok());
  CHECK(counts.copies == 4);
}

TEST_CASE("a tier moves with its sequences") {
  auto storage = make<small_type>();
  auto tier = *host_tier<>::make(storage, tier_room);
  auto const id = *storage.open(full());
  grow(storage, id, 7);
  auto const before = of(storage, id);
  auto const away = tier.offload(storage, id).value();
  auto other = std::move(tier);
  CHECK(tier.reload(storage, away).state().code == errc::not_in_tier);
  CHECK(of(storage, other.reload(storage, away).value()) == before);
}
