// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How much a storage holds: to the last block, with every tensor in a place of its own, and a
// refusal that names exactly what is missing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/table_map.hpp>

#include "support/encode_row.hpp"
#include "support/exact_numbers.hpp"
#include "support/print.hpp"
#include "support/storage_types.hpp"

using strata::errc;
using strata::growth;
using strata::layer_id;
using strata::sequence_id;
using strata::status;
using support::storage_room;

namespace {

/// Two KV classes of different size, and a layer without K/V.
strata::kv_classes hybrid() {
  strata::layer_kind wide, narrow, linear;
  wide.kv = {.kv_heads = 3, .k_dim = 5, .v_dim = 7};
  narrow.kv = {.kv_heads = 1, .k_dim = 9, .v_dim = 2};
  linear.has_kv = false;
  strata::layer_kind const layers[] = {wide, linear, narrow, wide, narrow};
  return *strata::kv_classes::make(layers);
}
strata::route_plan hybrid_plan(std::vector<std::int32_t> const& sources) {
  return *make_plan(*strata::table_map::make(sources), hybrid());
}

/// Blocks (or tensors) that `tokens` tokens of one stored layer take.
template <class S>
std::int32_t blocks_for(std::int32_t tokens, storage_room const& room) {
  if (!support::is_paged<S>) return tokens > 0;
  return (tokens + room.block_size - 1) / room.block_size;
}

/// A number that names one element of the cache, in 8 bits.
double name_of(sequence_id id, layer_id l, bool is_k, std::int32_t head, std::int32_t token,
               std::int32_t i) {
  auto const hash = ((id.index * 5 + l.index) * 2 + is_k) * 4 + head;
  return (hash * 37 + token * 11 + i) % 251;
}

/// The bytes of a row, and of its scales where those lie apart.
struct row_bytes {
  std::vector<std::byte> row, scales;
};

/// A row of names as a codec writes it. `scale`: of the row's KV head.
template <class Codec>
row_bytes bytes_of_names(std::vector<float> const& names, float scale) {
  auto const dim = static_cast<std::int32_t>(names.size());
  row_bytes bytes{std::vector<std::byte>(static_cast<std::size_t>(Codec::row_bytes(dim))),
                  std::vector<std::byte>(static_cast<std::size_t>(Codec::scale_bytes(dim)))};
  support::encode_row<Codec>(names.data(), dim, bytes.row.data(), bytes.scales.data(), scale);
  return bytes;
}

/// Calls visit(writable, is_k, layer, dim, row) for every stored tensor of a sequence.
template <class S, class Visit>
void for_each_tensor(S& storage, sequence_id id, Visit const& visit) {
  auto const& plan = storage.plan(id);
  for (layer_id l{0}; l.index < plan.num_layers; ++l.index) {
    auto const& kv = storage.classes()[l].kv;
    if (plan[l].k.stored) visit(storage.k_blocks(l), true, l, kv.k_dim, storage.k_row(id, l));
    if (plan[l].v.stored) visit(storage.v_blocks(l), false, l, kv.v_dim, storage.v_row(id, l));
  }
}

/// Calls visit(row's memory, scales' memory, what they are to hold) for every row of a sequence.
template <class S, class Visit>
void for_each_row(S& storage, sequence_id id, Visit const& visit) {
  for_each_tensor(storage, id, [&](auto blocks, bool is_k, layer_id l, auto dim, auto row) {
    for (std::int32_t h = 0; h < storage.classes()[l].kv.kv_heads; ++h)
      for (std::int32_t t = 0; t < storage.length(id); ++t) {
        std::vector<float> names;
        for (std::int32_t i = 0; i < dim; ++i)
          names.push_back(static_cast<float>(name_of(id, l, is_k, h, t, i)));
        auto const scale = static_cast<float>(1 + name_of(id, l, is_k, h, 0, 0));
        visit(blocks.at(row, h, t), blocks.scales_at(row, h, t),
              is_k ? bytes_of_names<typename S::k_codec>(names, scale)
                   : bytes_of_names<typename S::v_codec>(names, scale));
      }
  });
}

template <class S>
void fill_with_names(S& storage, sequence_id id) {
  for_each_row(storage, id, [](std::byte* row, std::byte* scales, row_bytes const& names) {
    std::copy(names.row.begin(), names.row.end(), row);
    std::copy(names.scales.begin(), names.scales.end(), scales);
  });
}

template <class S>
bool holds_its_names(S& storage, sequence_id id) {
  bool good = true;
  for_each_row(storage, id, [&](std::byte* row, std::byte* scales, row_bytes const& names) {
    good &= std::equal(names.row.begin(), names.row.end(), row) &&
            std::equal(names.scales.begin(), names.scales.end(), scales);
  });
  return good;
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("no two elements of a full cache share a byte", S, storage_disjoint) {
  storage_room const room{.max_sequences = 3, .max_tokens = 10, .k_tensors = 9, .v_tensors = 9};
  auto memory = support::memory_for<S>(hybrid(), room);
  auto storage = support::make_storage<S>(hybrid(), room, memory.borrow());
  std::vector<sequence_id> ids;
  for (auto const& sources : {std::vector{0, 1, 2, 3, 4}, {0, 1, 2, 0, 2}, {0, 1, 2, 0, 4}})
    ids.push_back(*storage.open(hybrid_plan(sources)));
  // In turns, so that the blocks of the sequences interleave.
  for (std::int32_t length = 0; length < room.max_tokens; ++length)
    for (auto const id : ids) {
      growth const one[] = {{id, 1}};
      REQUIRE(storage.reserve(one).ok());
      storage.commit();
    }
  for (auto const id : ids) fill_with_names(storage, id);
  for (auto const id : ids) CHECK(holds_its_names(storage, id));
  CHECK(memory.guards_intact());
  CHECK(storage.free_k_blocks() == 0);
  CHECK(storage.free_v_blocks() == 0);
}
TEST_CASE_TEMPLATE_APPLY(storage_disjoint, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("the last block is given, and the next one is missing by name", S,
                          storage_last_block) {
  // Room for 4 K tensors, but for 2 V tensors only.
  storage_room const room{.max_sequences = 2, .max_tokens = 8, .k_tensors = 4, .v_tensors = 2};
  auto memory = support::memory_for<S>(strata::kv_classes::uniform(2), room);
  auto storage = support::make_storage<S>(strata::kv_classes::uniform(2), room, memory.borrow());
  auto const id = *storage.open(*make_plan(strata::identity_map(2)));
  auto const other = *storage.open(*make_plan(strata::identity_map(2)));

  growth const all[] = {{id, 8}};
  REQUIRE(storage.reserve(all).ok());
  storage.commit();
  CHECK(storage.free_v_blocks() == 0);
  auto const before = state_of(storage, {id, other}, memory);
  for (std::int32_t tokens = 1; tokens <= 8; ++tokens) {
    CAPTURE(tokens);
    growth const more[] = {{other, tokens}};
    auto const missing = 2 * blocks_for<S>(tokens, room);  // V of two layers; there is K enough
    CHECK(storage.reserve(more) == status{errc::out_of_v_blocks, {}, missing, 0});
    CHECK(state_of(storage, {id, other}, memory) == before);
  }
  growth const nothing[] = {{other, 0}};
  CHECK(storage.reserve(nothing).ok());
  storage.commit();
  CHECK(storage.close(id).ok());
  growth const again[] = {{other, 8}};
  CHECK(storage.reserve(again).ok());
}
TEST_CASE_TEMPLATE_APPLY(storage_last_block, support::all_storages);

TEST_CASE_TEMPLATE_DEFINE("missing blocks add up over the batch", S, storage_missing) {
  storage_room const room{.max_sequences = 3, .max_tokens = 12, .k_tensors = 2, .v_tensors = 3};
  auto storage = support::make_storage<S>(strata::kv_classes::uniform(4), room);
  std::int32_t const k[] = {0, 0, 2, 2}, v[] = {0, 0, 0, 0};
  auto const plan = *make_plan(*strata::table_map::make(k), *strata::table_map::make(v),
                               strata::kv_classes::uniform(4));  // 2 of K, 1 of V
  growth growths[3];
  for (auto& g : growths) g = {*storage.open(plan), 12};
  auto const free_k = storage.free_k_blocks(), free_v = storage.free_v_blocks();
  auto const needed_k = 3 * 2 * blocks_for<S>(12, room), needed_v = 3 * blocks_for<S>(12, room);
  CHECK(storage.reserve(growths) == status{errc::out_of_k_blocks, {}, needed_k - free_k, free_k});
  CHECK(needed_v == free_v);
  CHECK(storage.free_k_blocks() == free_k);
  CHECK(storage.free_v_blocks() == free_v);
}
TEST_CASE_TEMPLATE_APPLY(storage_missing, support::all_storages);

TEST_CASE("a paged storage for plans holds a sequence of each, and no block more") {
  auto const classes = strata::kv_classes::uniform(4);
  std::int32_t const k[] = {0, 0, 2, 2}, v[] = {0, 0, 0, 0};
  strata::route_plan const plans[] = {
      *make_plan(strata::identity_map(4), classes), *make_plan(strata::grouped_map(4, 4), classes),
      *make_plan(*strata::table_map::make(k), *strata::table_map::make(v), classes)};
  auto const room = strata::paged_options::for_plans(plans, 12, 5);
  CHECK(room.k_blocks == (4 + 1 + 2) * 3);
  CHECK(room.v_blocks == (4 + 1 + 1) * 3);
  strata::paged_storage<strata::f32_codec> storage(classes, room);
  growth growths[3];
  for (std::size_t i = 0; i < 3; ++i) growths[i] = {*storage.open(plans[i]), 12};
  CHECK(storage.open(plans[0]).state().code == errc::too_many_sequences);
  CHECK(storage.reserve(growths).ok());
  CHECK(storage.free_k_blocks() == 0);
  CHECK(storage.free_v_blocks() == 0);

  constexpr auto most = (std::numeric_limits<std::int32_t>::max)();
  CHECK(strata::paged_options::for_plans(plans, most, 1).k_blocks == most);
  for (auto const& none :
       {strata::paged_options::for_plans({}, 12), strata::paged_options::for_plans(plans, 0),
        strata::paged_options::for_plans(plans, 12, 0)})
    CHECK(none.k_blocks == 0);  // which the storage refuses
}

// A plain bookkeeper beside the storage: thousands of random calls must agree with it.
TEST_CASE_TEMPLATE_DEFINE("a long life of random calls", S, storage_life) {
  storage_room const room{.max_sequences = 4, .max_tokens = 13, .k_tensors = 7, .v_tensors = 7};
  auto const classes = strata::kv_classes::uniform(6);
  auto storage = support::make_storage<S>(classes, room);
  auto const total = storage.free_k_blocks();
  std::map<std::int32_t, std::pair<std::int32_t, std::int32_t>> open;  // id: tokens, tensors
  auto const used = [&] {
    std::int32_t blocks = 0;
    for (auto const& [id, s] : open) blocks += s.second * blocks_for<S>(s.first, room);
    return blocks;
  };
  support::number_stream numbers(7);
  int refused = 0;
  for (int round = 0; round < 600; ++round) {
    auto const what = numbers.below(10);
    sequence_id const any{numbers.below(4)};
    if (what == 0) {
      auto const group = 1 + numbers.below(6);
      auto const id = storage.open(*make_plan(strata::grouped_map(6, group), classes));
      REQUIRE(id.ok() == (open.size() < 4));
      if (id.ok()) open[id->index] = {0, (6 + group - 1) / group};
    } else if (what == 1) {
      REQUIRE(storage.close(any).ok() == (open.erase(any.index) == 1));
    } else {
      std::vector<growth> growths;
      auto const before = open;
      bool fits = true;
      for (auto& [id, s] : open) {
        if (numbers.below(2) == 0) continue;
        growths.push_back({{id}, numbers.below(5)});
        s.first += growths.back().new_tokens;
        fits = fits && s.first <= room.max_tokens;
      }
      fits = fits && used() <= total;
      refused += !fits;
      REQUIRE(storage.reserve(growths).ok() == fits);
      bool const keep = fits && numbers.below(3) != 0;
      if (keep)
        storage.commit();
      else
        open = before;
      if (fits && !keep) storage.abandon();
    }
    REQUIRE(total - storage.free_k_blocks() == used());
    REQUIRE(total - storage.free_v_blocks() == used());
    for (auto const& [id, s] : open) REQUIRE(storage.length({id}) == s.first);
  }
  CHECK(refused > 50);
}
TEST_CASE_TEMPLATE_APPLY(storage_life, support::all_storages);
