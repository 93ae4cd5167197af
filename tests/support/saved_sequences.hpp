// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences of a small model whose bytes are all known, and what is saved of them.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/snapshot.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>

#include "storage_types.hpp"

namespace support::snapshots {

inline constexpr std::int32_t saved_layers = 4, saved_window = 7;

/// Two classes, one with a window, and a layer without K/V.
inline strata::kv_classes classes() {
  strata::layer_kind wide, narrow, linear;
  wide.kv = {.kv_heads = 2, .k_dim = 5, .v_dim = 33};
  narrow.kv = {.kv_heads = 1, .k_dim = 9, .v_dim = 2};
  narrow.window = saved_window;
  linear.has_kv = false;
  strata::layer_kind const layers[] = {wide, narrow, linear, wide};
  return *strata::kv_classes::make(layers);
}
inline strata::route_plan plan_of(std::vector<std::int32_t> const& k,
                                  std::vector<std::int32_t> const& v) {
  return *make_plan(*strata::table_map::make(k), *strata::table_map::make(v), classes());
}
inline strata::route_plan full() { return plan_of({0, 1, 2, 3}, {0, 1, 2, 3}); }
inline strata::route_plan shared() { return plan_of({0, 1, 2, 0}, {0, 1, 2, 0}); }
inline strata::route_plan only_v() { return plan_of({0, 1, 2, 0}, {0, 1, 2, 3}); }

/// Scales for head-scaled codecs.
inline std::vector<float> const saved_scales = {.5F, .25F, 2, 1, 4, 8, .125F, 1};
template <class S>
strata::head_scales scales_of() {
  strata::head_scales given;
  if (strata::head_scaled_codec<typename S::k_codec>) given.k = saved_scales;
  if (strata::head_scaled_codec<typename S::v_codec>) given.v = saved_scales;
  return given;
}

template <class S>
S make(std::int32_t block_size = 4, std::int32_t tensors = 12) {
  support::storage_room const room{.max_sequences = 4,
                                   .max_tokens = 30,
                                   .k_tensors = tensors,
                                   .v_tensors = tensors,
                                   .block_size = block_size};
  return support::make_storage<S>(classes(), room, {}, scales_of<S>());
}

/// Grows a sequence, and writes bytes of its own to every new row and scale.
template <class S>
void grow(S& storage, strata::sequence_id id, std::int32_t tokens, std::int32_t gap = 0) {
  auto const first = storage.length(id);
  strata::growth const g{id, tokens, storage.next_position(id) + gap};
  REQUIRE(storage.reserve({&g, 1}).ok());
  for (strata::layer_id l{0}; l.index < saved_layers; ++l.index)
    for (bool const is_k : {true, false}) {
      auto const& plan = storage.plan(id);
      if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
      auto const blocks = is_k ? storage.k_blocks(l) : storage.v_blocks(l);
      auto const row = is_k ? storage.k_row(id, l) : storage.v_row(id, l);
      auto const& kv = storage.classes()[l].kv;
      for (std::int32_t h = 0; h < kv.kv_heads; ++h)
        for (auto t = first; t < first + tokens; ++t) {
          auto const fill = [&](std::byte* to, std::int64_t size, std::int32_t salt) {
            for (std::int64_t i = 0; i < size; ++i)
              to[i] =
                  static_cast<std::byte>(l.index * 61 + t * 7 + h * 19 + i + salt + id.index * 3);
          };
          auto const sizes =
              is_k ? std::pair{S::k_codec::row_bytes(kv.k_dim), S::k_codec::scale_bytes(kv.k_dim)}
                   : std::pair{S::v_codec::row_bytes(kv.v_dim), S::v_codec::scale_bytes(kv.v_dim)};
          fill(blocks.at(row, h, t), sizes.first, is_k);
          bool const once = is_k ? strata::head_scaled_codec<typename S::k_codec>
                                 : strata::head_scaled_codec<typename S::v_codec>;
          auto* const own = blocks.scales_at(row, h, t);
          if (once)
            std::memcpy(own, &saved_scales[static_cast<std::size_t>(l.index * 2 + h)],
                        sizeof(float));
          else if (own != nullptr)
            fill(own, sizes.second, 100 + is_k);
        }
    }
  storage.commit();
}

/// Four sequences of three plans: grown at once and in two goes, with gaps, and without tokens.
template <class S>
std::vector<strata::sequence_id> open_four(S& storage) {
  std::vector<strata::sequence_id> ids;
  for (auto const& plan : {full(), shared(), only_v(), full()}) ids.push_back(*storage.open(plan));
  grow(storage, ids[0], 9);
  grow(storage, ids[1], 5);
  grow(storage, ids[0], 8);
  grow(storage, ids[2], 3, 2);  // a gap
  grow(storage, ids[2], 14, 1);
  return ids;
}

/// All that a sequence holds and a query may still see, byte by byte.
template <class S>
std::vector<std::byte> contents(S& storage, strata::sequence_id id) {
  std::vector<std::byte> all;
  auto const next = storage.next_position(id);
  for (strata::layer_id l{0}; l.index < saved_layers; ++l.index)
    for (bool const is_k : {true, false}) {
      auto const& plan = storage.plan(id);
      if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
      auto const blocks = is_k ? storage.k_blocks(l) : storage.v_blocks(l);
      auto const row = is_k ? storage.k_row(id, l) : storage.v_row(id, l);
      auto const& kind = storage.classes()[l];
      for (std::int32_t t = 0; t < storage.length(id); ++t) {
        if (next - storage.token_positions(id)[static_cast<std::size_t>(t)] >= kind.window)
          continue;
        for (std::int32_t h = 0; h < kind.kv.kv_heads; ++h) {
          auto const row_bytes =
              is_k ? S::k_codec::row_bytes(kind.kv.k_dim) : S::v_codec::row_bytes(kind.kv.v_dim);
          auto const scale_bytes = is_k ? S::k_codec::scale_bytes(kind.kv.k_dim)
                                        : S::v_codec::scale_bytes(kind.kv.v_dim);
          auto const* const at = blocks.at(row, h, t);
          all.insert(all.end(), at, at + row_bytes);
          auto const* const own = blocks.scales_at(row, h, t);
          if (own != nullptr) all.insert(all.end(), own, own + scale_bytes);
        }
      }
    }
  return all;
}

template <class S>
std::vector<std::byte> saved(S const& storage, std::vector<strata::sequence_id> const& ids) {
  std::vector<std::byte> file(static_cast<std::size_t>(*strata::snapshot_bytes(storage, ids)));
  strata::memory_sink sink(file);
  REQUIRE(strata::save(storage, ids, {42}, sink).ok());
  return file;
}

template <class S>
bool same_sequence(S& a, strata::sequence_id in_a, auto& b, strata::sequence_id in_b) {
  auto const positions = a.token_positions(in_a);
  return a.plan(in_a) == b.plan(in_b) && a.length(in_a) == b.length(in_b) &&
         a.next_position(in_a) == b.next_position(in_b) &&
         std::ranges::equal(positions, b.token_positions(in_b)) &&
         a.approximate(in_a) == b.approximate(in_b) && contents(a, in_a) == contents(b, in_b);
}

/// A storage that nothing may have changed.
template <class S>
bool is_empty(S const& storage, std::int32_t k_blocks, std::int32_t v_blocks) {
  for (std::int32_t i = 0; i < 4; ++i)
    if (storage.check_idle({i}).ok()) return false;
  return storage.free_k_blocks() == k_blocks && storage.free_v_blocks() == v_blocks &&
         storage.positions().data == nullptr;
}

using small_type = strata::paged_storage<strata::bf16_codec, strata::int8_codec>;

/// A file of two sequences, one with a gap.
inline std::vector<std::byte> small_file() {
  auto from = make<small_type>();
  std::vector<strata::sequence_id> const ids = {*from.open(only_v()), *from.open(full())};
  grow(from, ids[0], 10);
  grow(from, ids[1], 3, 4);
  return saved(from, ids);
}

/// Where each section begins, and its bytes without the checksum at its end.
inline std::vector<std::pair<std::size_t, std::size_t>> sections_of(
    std::vector<std::byte> const& file) {
  std::vector<std::pair<std::size_t, std::size_t>> sections;
  for (std::size_t at = 0; at < file.size();) {
    std::uint64_t body = 0;
    std::memcpy(&body, &file[at + 8], 8);
    auto const size = 16 + static_cast<std::size_t>((body + 7) / 8 * 8);
    sections.push_back({at, size});
    at += size + 8;
  }
  return sections;
}

}  // namespace support::snapshots
