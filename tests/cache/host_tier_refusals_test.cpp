// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where there is no room in a tier or in a storage, where a copy or an allocation fails, and what is
// not to be moved at all: a status, and nothing happened.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/failing_allocations.hpp"
#include "support/print.hpp"
#include "support/tiered_sequences.hpp"

using namespace support::tiered;
using strata::errc;
using strata::host_tier;
using strata::sequence_id;
using strata::status;
using strata::tier_id;

TEST_CASE("a tier that is full says how many bytes are missing, and nothing happens") {
  auto storage = make<small_type>();
  auto const one = *storage.open(full()), two = *storage.open(full());
  grow(storage, one, 10);
  grow(storage, two, 10);
  auto const before = of(storage, two);
  auto const pages = (bytes_of_tokens(storage, one) + tier_page - 1) / tier_page;
  auto tier = *host_tier<>::make(storage, {(2 * pages - 3) * tier_page + 5, 8, tier_page});
  CHECK(tier.allocated_bytes() == (2 * pages - 3) * tier_page);
  auto const away = tier.offload(storage, one).value();
  auto const free_k = storage.free_k_blocks(), free_v = storage.free_v_blocks();
  CHECK(tier.offload(storage, two).state() ==
        status{errc::out_of_tier_bytes, strata::no_layer, 3 * tier_page, (pages - 3) * tier_page});
  CHECK(of(storage, two) == before);
  CHECK(storage.free_k_blocks() == free_k);
  CHECK(storage.free_v_blocks() == free_v);
  CHECK(tier.size() == 1);
  CHECK(tier.drop(away).ok());
  CHECK(tier.drop(away) == status{errc::not_in_tier, strata::no_layer, away.place, 0});
  CHECK(tier.offload(storage, two).ok());
  // Nor are there more sequences than places.
  auto narrow = *host_tier<>::make(storage, {1 << 16, 1, tier_page});
  auto const three = *storage.open(full()), four = *storage.open(full());
  CHECK(narrow.offload(storage, three).ok());
  CHECK(narrow.offload(storage, four).state() ==
        status{errc::too_many_sequences, strata::no_layer, 1, 1});
  CHECK(storage.check_idle(four).ok());
}

TEST_CASE("where blocks are missing a sequence stays in the tier") {
  auto storage = make<small_type>();
  auto tier = *host_tier<>::make(storage, tier_room);
  auto const id = *storage.open(only_v());
  grow(storage, id, 10);
  auto const before = of(storage, id);
  auto const away = tier.offload(storage, id).value();
  // Ten tokens of K of 2 layers and V of 3 in blocks of four; the window of 7 needs tokens from 4 on.
  auto const refusal = [&](strata::paged_options const& options) {
    auto tight = *small_type::make(classes(), options);
    auto const s = tier.reload(tight, away).state();
    CHECK(is_empty(tight, options.k_blocks, options.v_blocks));
    CHECK(tier.size() == 1);
    return s;
  };
  CHECK(refusal({1, 30, 4, 4, 8}) == status{errc::out_of_k_blocks, strata::no_layer, 1, 4});
  CHECK(refusal({1, 30, 4, 5, 4}) == status{errc::out_of_v_blocks, strata::no_layer, 4, 4});
  CHECK(refusal({1, 9, 4, 5, 8}) == status{errc::sequence_full, strata::no_layer, 10, 9});
  auto crowded = *small_type::make(classes(), {1, 30, 4, 5, 8});
  auto const only = *crowded.open(full());
  CHECK(tier.reload(crowded, away).state().code == errc::too_many_sequences);
  REQUIRE(crowded.close(only).ok());
  CHECK(of(crowded, tier.reload(crowded, away).value()) == before);
}

TEST_CASE("what is not to be moved is refused, and nothing happens") {
  using scaled_type = strata::paged_storage<strata::fp8_codec>;
  auto storage = make<scaled_type>();
  auto tier = *host_tier<>::make(storage, tier_room);
  auto const id = *storage.open(full());
  grow(storage, id, 5);
  CHECK(tier.offload(storage, {2}).state().code == errc::unknown_sequence);
  CHECK(tier.reload(storage, {}).state() == status{errc::not_in_tier, strata::no_layer, -1, 0});
  CHECK(tier.reload(storage, {8, 1}).state().code == errc::not_in_tier);
  CHECK(tier.reload(storage, {0, 1}).state().code == errc::not_in_tier);
  CHECK(tier.drop({0, 0}).code == errc::not_in_tier);
  strata::growth const g{id, 1};
  REQUIRE(storage.reserve({&g, 1}).ok());
  CHECK(tier.offload(storage, id).state().code == errc::step_in_progress);
  storage.abandon();
  auto const away = tier.offload(storage, id).value();
  auto const other = *storage.open(full());
  strata::growth const h{other, 1};
  REQUIRE(storage.reserve({&h, 1}).ok());
  CHECK(tier.reload(storage, away).state().code == errc::step_in_progress);
  storage.abandon();
  // Other codecs, other scales, another model.
  strata::storage_tables const tables = storage.tables();
  auto own_scales = saved_scales;
  own_scales[0] = 3;
  auto const options = support::options_of<scaled_type>({.max_sequences = 1});
  auto rescaled = *scaled_type::make(classes(), options, {}, {own_scales, own_scales});
  CHECK(tables.k_scales.size() == own_scales.size());
  CHECK(tier.reload(rescaled, away).state() == status{errc::tier_foreign, strata::no_layer, 7, 0});
  auto other_codec = make<small_type>();
  CHECK(tier.reload(other_codec, away).state() ==
        status{errc::tier_foreign, strata::no_layer, 4, 0});
  CHECK(tier.reload_needs(other_codec, away).state().code == errc::tier_foreign);
  auto const stranger = *other_codec.open(full());
  CHECK(tier.offload(other_codec, stranger).state().code == errc::tier_foreign);
  CHECK(other_codec.check_idle(stranger).ok());
  auto const uniform = strata::kv_classes::uniform(saved_layers, classes()[{0}]);
  std::vector<float> const many(saved_layers * 2, 1.F);
  auto other_model = *scaled_type::make(uniform, options, {}, {many, many});
  CHECK(tier.reload(other_model, away).state() == status{errc::tier_foreign, {1}, 6, 0});
  CHECK(tier.size() == 1);
  // The tier's books know sequences that are as long as the storage's.
  auto longer = *scaled_type::make(classes(), {1, 60, 4, 99, 99}, {}, scales_of<scaled_type>());
  auto const long_id = *longer.open(full());
  grow(longer, long_id, 31);
  CHECK(tier.offload(longer, long_id).state() ==
        status{errc::sequence_full, strata::no_layer, 31, 30});
  CHECK(tier.reload(longer, away).state().code == errc::too_many_sequences);
}

TEST_CASE("options that cannot be, and every allocation that fails") {
  auto storage = make<small_type>();
  auto const code = [&](strata::host_tier_options const& options) {
    return host_tier<>::make(storage, options).state();
  };
  CHECK(code({1 << 16, 0, tier_page}).code == errc::bad_max_sequences);
  CHECK(code({1 << 16, 1, 63}) == status{errc::value_too_small, strata::no_layer, 63, 64});
  CHECK(code({63, 1, 64}) == status{errc::value_too_small, strata::no_layer, 63, 64});
  CHECK(code({std::int64_t{1} << 38, 1, 64}).code == errc::value_too_large);
  auto const before = support::aligned_allocations();
  REQUIRE(host_tier<>::make(storage, tier_room).ok());
  auto const all = support::aligned_allocations() - before;
  CHECK(all >= 5);
  for (std::int64_t i = 0; i < all; ++i) {
    support::fail_allocation(i);
    CHECK(code(tier_room).code == errc::out_of_memory);
  }
  support::fail_allocation(-1);
  // None is made later.
  auto tier = *host_tier<>::make(storage, tier_room);
  auto const id = *storage.open(full());
  grow(storage, id, 20, 1);
  support::fail_allocation(0);
  auto const made = support::aligned_allocations();
  auto const away = tier.offload(storage, id);
  auto const back = away.ok() ? tier.reload(storage, *away) : away.state();
  support::fail_allocation(-1);
  CHECK(back.ok());
  CHECK(support::aligned_allocations() == made);
}

TEST_CASE("a copy that fails changes nothing, whichever it is") {
  using storage_type = strata::paged_storage<strata::fp8_codec, strata::int8_codec>;
  auto storage = make<storage_type>();
  failing_copier::counts counts;
  failing_copier copier;
  copier.to = &counts;
  auto tier = *host_tier<failing_copier>::make(storage, tier_room, copier);
  auto id = *storage.open(full());
  grow(storage, id, 3, 5);
  grow(storage, id, 9);
  auto const before = of(storage, id);
  auto const free_k = storage.free_k_blocks(), free_v = storage.free_v_blocks();
  tier_id away;
  std::int64_t out = 0, in = 0;
  for (;; ++out) {
    REQUIRE(out < 1000);
    counts = {0, out};
    auto const left = tier.offload(storage, id);
    if (left.ok()) {
      away = *left;
      break;
    }
    CHECK(left.state() == status{errc::device_failure, strata::no_layer, 700, 0});
    CHECK(of(storage, id) == before);
    CHECK(storage.free_k_blocks() == free_k);
    CHECK(storage.free_v_blocks() == free_v);
    CHECK(tier.size() == 0);
    CHECK(tier.free_bytes() == tier.allocated_bytes());
  }
  for (;; ++in) {
    REQUIRE(in < 1000);
    counts = {0, in};
    auto const came = tier.reload(storage, away);
    if (came.ok()) {
      id = *came;
      break;
    }
    CHECK(came.state() == status{errc::device_failure, strata::no_layer, 700, 0});
    CHECK(is_empty(storage, 12 * 8, 12 * 8));
    CHECK(tier.size() == 1);
  }
  CHECK(out > 20);
  CHECK(in > 20);
  CHECK(of(storage, id) == before);
}
