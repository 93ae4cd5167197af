// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences of a device's storage that take turns in a tier, wherever the device is: blocks that one
// left are another's at once, and what is written there is written behind the copies.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include <strata/cache/host_tier.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/plan.hpp>

#include "print.hpp"

namespace support::tiers {

using strata::layer_id;
using strata::sequence_id;
using strata::tensor;

constexpr std::int32_t layers = 4, tokens = 22, block_size = 4;

inline strata::kv_classes const model =
    strata::kv_classes::uniform(layers, {.kv = {.kv_heads = 2, .k_dim = 32, .v_dim = 32}});
/// Of one sequence with all layers, and no block more.
inline strata::paged_options const room{2, tokens, block_size, layers * 6, layers * 6};
inline strata::host_tier_options const tier_room{1 << 18, 4, 1000};

/// What each piece of a sequence's rows and scales was given: (layer, tensor, number).
using known_bytes =
    std::map<std::tuple<std::int32_t, tensor, std::int32_t>, std::vector<std::byte>>;

/// Calls body(key, bytes) for the pieces of all tokens of a sequence.
template <class Storage, class Body>
void for_pieces(Storage& storage, sequence_id id, Body const& body) {
  for (layer_id l{0}; layers > l.index; ++l.index)
    for (auto const which : {tensor::k, tensor::k_scales, tensor::v, tensor::v_scales}) {
      bool const is_k = which == tensor::k || which == tensor::k_scales;
      auto const& plan = storage.plan(id);
      if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
      std::int32_t number = 0;
      auto const s = storage.import_bytes(id, l, which, 0, storage.length(id), [&](auto bytes) {
        body(std::tuple(l.index, which, number++), bytes);
      });
      REQUIRE(s.ok());
    }
}

/// A new sequence of 22 tokens, every byte of it its own; scales of a head all the same.
template <class Storage, class Memory>
sequence_id fill(Storage& storage, strata::route_plan const& plan, int salt, Memory const& memory,
                 known_bytes& known) {
  auto const id = storage.open(plan).value();
  strata::growth const g{id, tokens};
  REQUIRE(storage.reserve({&g, 1}).ok());
  storage.commit();
  for_pieces(storage, id, [&](auto const& key, auto bytes) {
    std::vector<std::byte> values(bytes.size());
    auto const& [l, which, number] = key;
    bool const once =
        (which == tensor::k_scales && strata::head_scaled_codec<typename Storage::k_codec>) ||
        (which == tensor::v_scales && strata::head_scaled_codec<typename Storage::v_codec>);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<std::byte>(static_cast<int>(i) * 7 + salt * 31 + l * 13 +
                                         static_cast<int>(which) * 5 + (once ? 0 : number * 11));
    auto& kept = known[key] = std::move(values);  // a copy of it may begin later
    memory.write(bytes.data(), kept);
  });
  return id;
}

/// memory: `write(to, bytes)` and `read(from, size)` in the device's order. Two sequences of which
/// there is room for one go and come five times. settle(): all is done.
template <class Storage, class Tier, class Memory, class Settle>
void run(Storage& storage, Tier& tier, Memory const& memory, Settle const& settle) {
  auto const full = make_plan(strata::identity_map(layers), model).value();
  auto const half = make_plan(strata::grouped_map(layers, 2), model).value();
  known_bytes known[2];
  auto one = fill(storage, full, 1, memory, known[0]);
  CHECK(storage.free_k_blocks() == 0);
  auto one_away = tier.offload(storage, one).value();
  CHECK(storage.free_k_blocks() == layers * 6);
  // In the blocks that the first had a moment ago, whose copies may not have begun.
  auto two = fill(storage, half, 2, memory, known[1]);
  for (int turn = 0; turn < 5; ++turn) {
    auto const two_away = tier.offload(storage, two).value();
    one = tier.reload(storage, one_away).value();
    CHECK(tier.reload(storage, two_away).state().code == strata::errc::out_of_k_blocks);
    one_away = tier.offload(storage, one).value();
    two = tier.reload(storage, two_away).value();
  }
  settle();
  auto const good = [&](sequence_id id, known_bytes const& expected) {
    std::size_t same = 0;
    for_pieces(storage, id, [&](auto const& key, auto bytes) {
      same += memory.read(bytes.data(), bytes.size()) == expected.at(key);
    });
    return same == expected.size() && same > 20;
  };
  CHECK(good(two, known[1]));
  REQUIRE(storage.close(two).ok());
  one = tier.reload(storage, one_away).value();
  CHECK(good(one, known[0]));
  // The tier may go while its last copies are under way.
  CHECK(tier.offload(storage, one).ok());
}

}  // namespace support::tiers
