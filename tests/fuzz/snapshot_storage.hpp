// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Storages that take up snapshots, and all that a refusal could have changed in one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/snapshot.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>

#include "fuzz/fuzz.hpp"
#include "support/storage_types.hpp"

namespace fuzz::snapshot {

using strata::layer_id;
using strata::sequence_id;
using strata::tensor;
using subject_memory = support::guarded_memory;

using paged = strata::paged_storage<strata::bf16_codec, strata::int8_codec>;
using contiguous = strata::contiguous_storage<strata::bf16_codec, strata::int8_codec>;
using head_scaled = strata::paged_storage<strata::fp8_codec, strata::bf16_codec>;

inline constexpr std::int32_t num_layers = 4;
inline constexpr strata::snapshot_options options{.model = 42};

/// Two classes, one with a window, and a layer without K/V.
inline strata::kv_classes const& classes() {
  static auto const all = [] {
    strata::layer_kind wide, narrow, linear;
    wide.kv = {.kv_heads = 2, .k_dim = 5, .v_dim = 33};
    narrow.kv = {.kv_heads = 1, .k_dim = 9, .v_dim = 2};
    narrow.window = 7;
    linear.has_kv = false;
    strata::layer_kind const layers[] = {wide, narrow, linear, wide};
    return *strata::kv_classes::make(layers);
  }();
  return all;
}

/// All layers lead; the last follows the first; in K alone; in V alone.
inline strata::route_plan const& plan_number(std::int32_t which) {
  static auto const plans = [] {
    std::vector<strata::route_plan> all;
    for (std::int32_t i = 0; i < 4; ++i) {
      std::int32_t const k[] = {0, 1, 2, i == 1 || i == 2 ? 0 : 3},
                         v[] = {0, 1, 2, i == 1 || i == 3 ? 0 : 3};
      all.push_back(
          *make_plan(*strata::table_map::make(k), *strata::table_map::make(v), classes()));
    }
    return all;
  }();
  return plans[static_cast<std::size_t>(which % 4)];
}

/// What a byte says of the storage.
struct setting {
  std::int32_t type = 0;        // 0: paged, 1: contiguous, 2: head_scaled
  std::int32_t block_size = 4;  // of paged ones
  std::int32_t under = -1;      // restore_subset under this plan; -1: restore
  bool tight = false;           // memory for few blocks
  bool busy = false;            // there is a sequence before

  static setting of(std::uint8_t mode) {
    constexpr std::int32_t sizes[] = {4, 1, 7, 16};
    return {mode % 4 % 3, sizes[mode / 4 % 4], mode / 16 % 4 - 1, mode / 64 % 2 == 1,
            mode / 128 == 1};
  }
  support::storage_room room() const {
    return {.max_sequences = 5,
            .max_tokens = 30,
            .k_tensors = tight ? 4 : 15,
            .v_tensors = tight ? 4 : 15,
            .block_size = block_size};
  }
};

/// [num_layers, 2 KV heads], for head-scaled codecs.
inline constexpr float scales[] = {.5F, .25F, 2, 1, 4, 8, .125F, 1};
template <class S>
strata::head_scales scales_of() {
  strata::head_scales given;
  if (strata::head_scaled_codec<typename S::k_codec>) given.k = scales;
  return given;
}

/// Calls body(layer, is K) for what a sequence stores.
template <class S, class Body>
void for_stored(S const& storage, sequence_id id, Body const& body) {
  for (layer_id l{0}; l.index < num_layers; ++l.index) {
    if (storage.plan(id)[l].k.stored) body(l, true);
    if (storage.plan(id)[l].v.stored) body(l, false);
  }
}

/// K and V of a sequence, all that is there.
template <class S>
std::vector<std::byte> contents(S const& storage, sequence_id id) {
  std::vector<std::byte> all;
  for_stored(storage, id, [&](layer_id l, bool is_k) {
    for (auto const which :
         {is_k ? tensor::k : tensor::v, is_k ? tensor::k_scales : tensor::v_scales}) {
      auto const first = storage.first_token(id, l, is_k ? tensor::k : tensor::v);
      auto const s = storage.for_bytes(id, l, which, first, storage.length(id), [&](bytes piece) {
        all.insert(all.end(), piece.begin(), piece.end());
      });
      require(s.ok(), "what a sequence holds can be read");
    }
  });
  return all;
}

/// Adds tokens whose bytes are all known.
template <class S>
bool grow(S& storage, sequence_id id, std::int32_t tokens, std::int32_t gap, std::uint8_t salt) {
  auto const first = storage.length(id);
  strata::growth const g{id, tokens, storage.next_position(id) + gap};
  if (!storage.reserve({&g, 1}).ok()) return false;
  storage.commit();
  for_stored(storage, id, [&](layer_id l, bool is_k) {
    auto const which = is_k ? tensor::k : tensor::v;
    auto const begin = std::max(first, storage.first_token(id, l, which));
    auto const fill = [&](std::span<std::byte> to) {
      for (auto& b : to) b = static_cast<std::byte>(salt += 7);
    };
    auto const own = [&](std::span<std::byte> to) {
      std::memcpy(to.data(), storage.k_head_scales(l), to.size());
    };
    bool const per_head = is_k && strata::head_scaled_codec<typename S::k_codec>;
    auto const rows = storage.import_bytes(id, l, which, begin, storage.length(id), fill);
    auto const of_rows = is_k ? tensor::k_scales : tensor::v_scales;
    auto const done = per_head
                          ? storage.import_bytes(id, l, of_rows, begin, storage.length(id), own)
                          : storage.import_bytes(id, l, of_rows, begin, storage.length(id), fill);
    require(rows.ok() && done.ok(), "new tokens can be written");
  });
  return true;
}

template <class S>
std::vector<std::byte> saved(S const& storage, std::vector<sequence_id> const& ids) {
  std::vector<std::byte> file(static_cast<std::size_t>(*strata::snapshot_bytes(storage, ids)));
  strata::memory_sink sink(file);
  require(strata::save(storage, ids, options, sink).ok(), "open sequences can be saved");
  return file;
}

/// The books of a storage.
template <class S>
std::vector<std::int64_t> books_of(S const& storage, std::vector<sequence_id> const& open) {
  std::vector<std::int64_t> books = {storage.free_k_blocks(), storage.free_v_blocks(),
                                     storage.positions().data == nullptr};
  for (std::int32_t i = 0; i < storage.max_sequences(); ++i)
    books.push_back(storage.check_idle({i}).ok());
  for (auto const id : open) {
    books.insert(books.end(),
                 {storage.length(id), storage.next_position(id), storage.approximate(id),
                  static_cast<std::int64_t>(storage.table_version(id))});
    for_stored(storage, id, [&](layer_id l, bool is_k) {
      books.push_back(l.index);
      books.push_back(storage.first_token(id, l, is_k ? tensor::k : tensor::v));
    });
  }
  return books;
}

/// All that a call could have changed: memory, tables and books.
struct everything {
  support::storage_state state;
  std::vector<std::int64_t> books;
  std::vector<std::int32_t> k_table, v_table, positions;
  friend bool operator==(everything const&, everything const&) = default;
};
template <class S>
everything all_of(S& storage, std::vector<sequence_id> const& open, subject_memory const& memory) {
  auto const tables = storage.tables();
  auto const copy = [](auto span) { return std::vector(span.begin(), span.end()); };
  return {state_of(storage, open, memory), books_of(storage, open), copy(tables.k_blocks),
          copy(tables.v_blocks), copy(tables.positions)};
}

/// A storage, in memory that is watched.
template <class S>
struct subject {
  subject_memory memory;
  S storage;
  std::vector<sequence_id> before;  // open sequences

  explicit subject(setting const& how)
      : memory(memory_of(how)),
        storage(support::make_storage<S>(classes(), how.room(), memory.borrow(), scales_of<S>())) {
    if (!how.busy) return;
    before.push_back(*storage.open(plan_number(0)));
    grow(storage, before[0], 5, 0, 1);
  }
  std::vector<std::byte> saved_before() const { return saved(storage, before); }

 private:
  static subject_memory memory_of(setting const& how) {
    auto const needed = *S::memory_bytes(classes(), support::options_of<S>(how.room()));
    return {needed.k, needed.v};
  }
};

}  // namespace fuzz::snapshot
