// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The storages that properties are checked on, made alike, and everything that a refused or
// abandoned call could have changed in one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>

namespace support {

/// Both storages, every codec, and codecs that differ for K and V.
using all_storages = std::tuple<
    strata::contiguous_storage<strata::f64_codec>, strata::paged_storage<strata::f64_codec>,
    strata::contiguous_storage<strata::f32_codec>, strata::paged_storage<strata::f32_codec>,
    strata::contiguous_storage<strata::f16_codec, strata::bf16_codec>,
    strata::paged_storage<strata::bf16_codec, strata::f16_codec>,
    strata::contiguous_storage<strata::f32_codec, strata::f16_codec>,
    strata::paged_storage<strata::f16_codec, strata::f64_codec>,
    strata::contiguous_storage<strata::int8_codec, strata::q8_0_codec>,
    strata::paged_storage<strata::q8_0_codec, strata::int8_codec>,
    strata::contiguous_storage<strata::fp8_codec, strata::int8_codec>,
    strata::paged_storage<strata::fp8_codec>>;

template <class S>
inline constexpr bool is_paged = false;
template <class K, class V>
inline constexpr bool is_paged<strata::paged_storage<K, V>> = true;

/// How much a storage holds. Tensors are K (or V) of one stored layer of one sequence.
struct storage_room {
  std::int32_t max_sequences = 3;
  std::int32_t max_tokens = 24;
  std::int32_t k_tensors = 24;
  std::int32_t v_tensors = 24;
  std::int32_t block_size = 4;  ///< of paged storages, which get the blocks for that many tensors
  std::int32_t max_rollback = 0;
};

template <class S>
auto options_of(storage_room const& room) {
  if constexpr (is_paged<S>) {
    auto const per_tensor = (room.max_tokens + room.block_size - 1) / room.block_size;
    return strata::paged_options{
        room.max_sequences,          room.max_tokens,  room.block_size, room.k_tensors * per_tensor,
        room.v_tensors * per_tensor, room.max_rollback};
  } else {
    return strata::contiguous_options{room.max_sequences, room.max_tokens, room.k_tensors,
                                      room.v_tensors};
  }
}

template <class S>
S make_storage(strata::kv_classes const& classes, storage_room const& room = {},
               strata::borrowed_memory memory = {}, strata::head_scales const& scales = {}) {
  return *S::make(classes, options_of<S>(room), memory, scales);
}

/// Memory for a storage to borrow, with guard bytes around it and a pattern in it.
class guarded_memory {
 public:
  guarded_memory(std::int64_t k_bytes, std::int64_t v_bytes) : k_(k_bytes), v_(v_bytes) {}

  strata::borrowed_memory borrow() { return {k_.inside(), v_.inside()}; }
  /// The memory with its guards.
  std::span<std::byte const> k() const { return k_.memory; }
  std::span<std::byte const> v() const { return v_.memory; }
  bool guards_intact() const { return k_.intact() && v_.intact(); }

 private:
  static constexpr std::size_t guard = 256;
  static constexpr std::byte guard_byte{0x5C};

  struct side {
    std::vector<std::byte> memory;
    std::size_t first;  // of what is lent, on a 64-byte boundary
    std::size_t bytes;

    explicit side(std::int64_t size)
        : memory(static_cast<std::size_t>(size) + 2 * guard, guard_byte),
          first(guard - reinterpret_cast<std::uintptr_t>(memory.data()) % 64),
          bytes(static_cast<std::size_t>(size)) {
      for (auto& x : inside()) x = std::byte{0xA5};
    }
    std::span<std::byte> inside() { return std::span(memory).subspan(first, bytes); }
    bool intact() const {
      for (std::size_t i = 0; i < memory.size(); ++i)
        if ((i < first || i >= first + bytes) && memory[i] != guard_byte) return false;
      return true;
    }
  };

  side k_, v_;
};

/// Memory of exactly the bytes that a storage of this room needs, as its refusals name them.
template <class S>
guarded_memory memory_for(strata::kv_classes const& classes, storage_room const& room) {
  alignas(64) std::byte one[1];
  auto const k = S::make(classes, options_of<S>(room), {one, {}}).state();
  auto const v = S::make(classes, options_of<S>(room), {{}, one}).state();
  return {k.bound, v.bound};
}

/// Everything about a storage that a call which fails, or is undone, must leave alone.
struct storage_state {
  std::int32_t free_k = 0, free_v = 0;
  bool gapped = false;
  std::vector<std::int32_t> numbers = {};  // lengths, next positions, positions, rows, block tables
  std::vector<std::byte> k = {}, v = {};

  friend bool operator==(storage_state const&, storage_state const&) = default;
};

/// `ids`: the open sequences. The storage borrows `memory`.
template <class S>
storage_state state_of(S& storage, std::vector<strata::sequence_id> const& ids,
                       guarded_memory const& memory) {
  storage_state state{storage.free_k_blocks(), storage.free_v_blocks()};
  auto const positions = storage.positions();
  state.gapped = positions.data != nullptr;
  state.k.assign(memory.k().begin(), memory.k().end());
  state.v.assign(memory.v().begin(), memory.v().end());
  auto& numbers = state.numbers;
  for (auto const id : ids) {
    auto const length = storage.length(id);
    numbers.insert(numbers.end(), {length, storage.next_position(id)});
    for (std::int32_t t = 0; t < length && positions.data != nullptr; ++t)
      numbers.push_back(positions.data[id.index * positions.stride + t]);
    for (strata::layer_id l{0}; storage.plan(id).num_layers > l.index; ++l.index) {
      if (storage.plan(id)[l].k.stored) numbers.push_back(storage.k_row(id, l));
      if (storage.plan(id)[l].v.stored) numbers.push_back(storage.v_row(id, l));
    }
  }
  auto const rows = std::int64_t{storage.max_sequences()} * storage.classes().num_layers();
  for (auto const& blocks : {storage.k_blocks({0}), storage.v_blocks({0})})
    if (blocks.block_table != nullptr)
      numbers.insert(numbers.end(), blocks.block_table,
                     blocks.block_table + rows * blocks.blocks_per_row);
  return state;
}

}  // namespace support
