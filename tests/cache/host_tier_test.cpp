// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences that leave a storage for the host's memory and come back: as they were, into storages of
// another kind, and nothing happens where there is no room or a copy fails.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include <strata/cache/host_tier.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/prefix_index.hpp>

#include "support/failing_allocations.hpp"
#include "support/print.hpp"
#include "support/saved_sequences.hpp"

using namespace support::snapshots;
using strata::errc;
using strata::host_tier;
using strata::layer_id;
using strata::sequence_id;
using strata::status;
using strata::tier_id;

namespace {

using pairs = std::tuple<
    std::pair<strata::paged_storage<strata::f64_codec>, strata::paged_storage<strata::f64_codec>>,
    std::pair<strata::paged_storage<strata::f32_codec, strata::f16_codec>,
              strata::contiguous_storage<strata::f32_codec, strata::f16_codec>>,
    std::pair<strata::contiguous_storage<strata::bf16_codec, strata::int8_codec>,
              strata::paged_storage<strata::bf16_codec, strata::int8_codec>>,
    std::pair<strata::paged_storage<strata::fp8_codec, strata::q8_0_codec>,
              strata::contiguous_storage<strata::fp8_codec, strata::q8_0_codec>>,
    std::pair<strata::paged_storage<strata::int4_codec, strata::fp8_codec>,
              strata::paged_storage<strata::int4_codec, strata::fp8_codec>>>;

/// What a sequence is, seen from outside.
struct portrait {
  strata::route_plan plan;
  std::int32_t length, next_position;
  std::vector<std::int32_t> positions;
  bool approximate;
  std::vector<std::byte> bytes;

  friend bool operator==(portrait const&, portrait const&) = default;
};
template <class S>
portrait of(S& storage, sequence_id id) {
  auto const positions = storage.token_positions(id);
  return {storage.plan(id),          storage.length(id),
          storage.next_position(id), {positions.begin(), positions.end()},
          storage.approximate(id),   contents(storage, id)};
}

/// Bytes of K and V of all tokens that a sequence holds.
template <class S>
std::int64_t bytes_of_tokens(S& storage, sequence_id id) {
  std::int64_t bytes = 0;
  auto const plan = storage.plan(id);
  for (layer_id l{0}; l.index < num_layers; ++l.index) {
    auto const& kv = storage.classes()[l].kv;
    auto const tokens = [&](strata::tensor which) {
      return std::int64_t{storage.length(id)} - storage.first_token(id, l, which);
    };
    auto const side = [&]<class Codec>(Codec, strata::tensor which, std::int32_t dim) {
      auto const scales = Codec::scale_bytes(dim) * kv.kv_heads;
      bytes += tokens(which) * Codec::row_bytes(dim) * kv.kv_heads;
      bytes +=
          strata::head_scaled_codec<Codec> && tokens(which) > 0 ? scales : tokens(which) * scales;
    };
    if (plan[l].k.stored) side(typename S::k_codec{}, strata::tensor::k, kv.k_dim);
    if (plan[l].v.stored) side(typename S::v_codec{}, strata::tensor::v, kv.v_dim);
  }
  return bytes;
}

constexpr std::int32_t page = 64;
strata::host_tier_options const room{1 << 16, 8, page};

/// Copies of which one fails.
struct failing_copier : strata::host_copier {
  struct counts {
    std::int64_t copies = 0, failing = -1;
  };
  counts* to = nullptr;

  struct memory : strata::host_copier::memory {
    static strata::result<memory> make(failing_copier const&, std::int64_t bytes) noexcept {
      memory made;
      if (auto const s = made.allocate(bytes); !s.ok()) return s;
      return strata::result<memory>(std::move(made));
    }
  };
  status copy(std::byte* at, std::byte const* from, std::size_t bytes) const noexcept {
    if (to->copies++ == to->failing) return {errc::device_failure, strata::no_layer, 700, 0};
    return host_copier::copy(at, from, bytes);
  }
};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("sequences come back from the tier as they were", Pair, back) {
  using from_type = typename Pair::first_type;
  using to_type = typename Pair::second_type;
  for (std::int32_t const page_bytes : {64, 100, 1 << 12}) {
    auto from = make<from_type>();
    auto tier = *host_tier<>::make(from, {1 << 16, 8, page_bytes});
    std::vector<sequence_id> ids;
    for (auto const& plan : {full(), shared(), only_v(), full()}) ids.push_back(*from.open(plan));
    grow(from, ids[0], 9);
    grow(from, ids[1], 5);
    grow(from, ids[0], 8);
    grow(from, ids[2], 3, 2);  // a gap
    grow(from, ids[2], 14, 1);
    // The fourth has no tokens.
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
TEST_CASE_TEMPLATE_APPLY(back, pairs);

TEST_CASE("forks, shrunk sequences and windows go and come back") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  auto storage = make<storage_type>();
  auto tier = *host_tier<>::make(storage, room);
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
  auto tier = *host_tier<>::make(storage, room);
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

TEST_CASE("a tier that is full says how many bytes are missing, and nothing happens") {
  auto storage = make<small_type>();
  auto const one = *storage.open(full()), two = *storage.open(full());
  grow(storage, one, 10);
  grow(storage, two, 10);
  auto const before = of(storage, two);
  auto const pages = (bytes_of_tokens(storage, one) + page - 1) / page;
  auto tier = *host_tier<>::make(storage, {(2 * pages - 3) * page + 5, 8, page});
  CHECK(tier.allocated_bytes() == (2 * pages - 3) * page);
  auto const away = tier.offload(storage, one).value();
  auto const free_k = storage.free_k_blocks(), free_v = storage.free_v_blocks();
  CHECK(tier.offload(storage, two).state() ==
        status{errc::out_of_tier_bytes, strata::no_layer, 3 * page, (pages - 3) * page});
  CHECK(of(storage, two) == before);
  CHECK(storage.free_k_blocks() == free_k);
  CHECK(storage.free_v_blocks() == free_v);
  CHECK(tier.size() == 1);
  CHECK(tier.drop(away).ok());
  CHECK(tier.drop(away) == status{errc::not_in_tier, strata::no_layer, away.place, 0});
  CHECK(tier.offload(storage, two).ok());
  // Nor are there more sequences than places.
  auto narrow = *host_tier<>::make(storage, {1 << 16, 1, page});
  auto const three = *storage.open(full()), four = *storage.open(full());
  CHECK(narrow.offload(storage, three).ok());
  CHECK(narrow.offload(storage, four).state() ==
        status{errc::too_many_sequences, strata::no_layer, 1, 1});
  CHECK(storage.check_idle(four).ok());
}

TEST_CASE("where blocks are missing a sequence stays in the tier") {
  auto storage = make<small_type>();
  auto tier = *host_tier<>::make(storage, room);
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
  auto tier = *host_tier<>::make(storage, room);
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
  auto own_scales = scales;
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
  auto const uniform = strata::kv_classes::uniform(num_layers, classes()[{0}]);
  std::vector<float> const many(num_layers * 2, 1.F);
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

TEST_CASE("ids of sequences that left are not used again") {
  auto storage = make<small_type>();
  auto tier = *host_tier<>::make(storage, {1 << 16, 1, page});
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

TEST_CASE("options that cannot be, and every allocation that fails") {
  auto storage = make<small_type>();
  auto const code = [&](strata::host_tier_options const& options) {
    return host_tier<>::make(storage, options).state();
  };
  CHECK(code({1 << 16, 0, page}).code == errc::bad_max_sequences);
  CHECK(code({1 << 16, 1, 63}) == status{errc::value_too_small, strata::no_layer, 63, 64});
  CHECK(code({63, 1, 64}) == status{errc::value_too_small, strata::no_layer, 63, 64});
  CHECK(code({std::int64_t{1} << 38, 1, 64}).code == errc::value_too_large);
  auto const before = support::aligned_allocations();
  REQUIRE(host_tier<>::make(storage, room).ok());
  auto const all = support::aligned_allocations() - before;
  CHECK(all >= 5);
  for (std::int64_t i = 0; i < all; ++i) {
    support::fail_allocation(i);
    CHECK(code(room).code == errc::out_of_memory);
  }
  support::fail_allocation(-1);
  // None is made later.
  auto tier = *host_tier<>::make(storage, room);
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
  auto tier = *host_tier<failing_copier>::make(storage, room, copier);
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
  auto tier = *host_tier<>::make(storage, room);
  auto const id = *storage.open(full());
  grow(storage, id, 7);
  auto const before = of(storage, id);
  auto const away = tier.offload(storage, id).value();
  auto other = std::move(tier);
  CHECK(tier.reload(storage, away).state().code == errc::not_in_tier);
  CHECK(of(storage, other.reload(storage, away).value()) == before);
}
