// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences before they leave for a tier and after they came back, and copies that fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/cache/host_tier.hpp>

#include "saved_sequences.hpp"

namespace support::tiered {

using namespace support::snapshots;

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
portrait of(S& storage, strata::sequence_id id) {
  auto const positions = storage.token_positions(id);
  return {storage.plan(id),          storage.length(id),
          storage.next_position(id), {positions.begin(), positions.end()},
          storage.approximate(id),   contents(storage, id)};
}

/// Bytes of K and V of all tokens that a sequence holds.
template <class S>
std::int64_t bytes_of_tokens(S& storage, strata::sequence_id id) {
  std::int64_t bytes = 0;
  auto const plan = storage.plan(id);
  for (strata::layer_id l{0}; l.index < saved_layers; ++l.index) {
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

constexpr std::int32_t tier_page = 64;
inline strata::host_tier_options const tier_room{1 << 16, 8, tier_page};

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
  strata::status copy(std::byte* at, std::byte const* from, std::size_t bytes) const noexcept {
    if (to->copies++ == to->failing)
      return {strata::errc::device_failure, strata::no_layer, 700, 0};
    return host_copier::copy(at, from, bytes);
  }
};

}  // namespace support::tiered
