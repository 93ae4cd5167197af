// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An engine's cache for a borrowed_storage: all layers in one allocation for K and one for V, each
// layer a range of rows of one block table, the blocks of a row far apart and in no order. Scales
// lie in an allocation of their own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <strata/cache/borrowed_storage.hpp>

#include "exact_numbers.hpp"
#include "storage_types.hpp"

namespace support {

/// The K or the V of an engine.
template <class Codec>
class engine_tensor {
 public:
  engine_tensor(strata::kv_classes const& classes, storage_room const& room,
                std::int32_t strata::kv_class::* dim, std::uint64_t seed)
      : classes_(classes), block_size_(room.block_size), dim_(dim) {
    blocks_per_row_ = (room.max_tokens + block_size_ - 1) / block_size_;
    table_.resize(static_cast<std::size_t>(classes.num_layers() * room.max_sequences) *
                  static_cast<std::size_t>(blocks_per_row_));
    std::iota(table_.begin(), table_.end(), 0);
    number_stream numbers(seed);
    for (auto n = static_cast<std::int32_t>(table_.size()); n > 1; --n)
      std::swap(table_[static_cast<std::size_t>(n - 1)],
                table_[static_cast<std::size_t>(numbers.below(n))]);
    for (strata::layer_id l{0}; classes.num_layers() > l.index; ++l.index) {
      if (!classes[l].has_kv) continue;
      auto const tokens = std::int64_t{block_size_} * classes[l].kv.kv_heads;
      bytes_ = std::max(bytes_, tokens * Codec::row_bytes(size(l)));
      scale_bytes_ = std::max(scale_bytes_, tokens * Codec::scale_bytes(size(l)));
    }
    memory_.resize(table_.size() * static_cast<std::size_t>(bytes_));
    scales_.resize(table_.size() * static_cast<std::size_t>(scale_bytes_));
  }

  strata::writable_blocks layer(strata::layer_id l) {
    if (!classes_[l].has_kv) return {};
    auto blocks = strata::nhd_blocks<Codec>(memory_.data(), block_size_, classes_[l].kv.kv_heads,
                                            size(l), scales_.empty() ? nullptr : scales_.data());
    blocks.stride.block = bytes_;
    blocks.scale_stride.block = scale_bytes_;
    blocks.block_table = table_.data();
    blocks.blocks_per_row = blocks_per_row_;
    return blocks;
  }

 private:
  std::int32_t size(strata::layer_id l) const { return classes_[l].kv.*dim_; }

  strata::kv_classes classes_;
  std::int32_t block_size_, blocks_per_row_;
  std::int32_t strata::kv_class::* dim_;
  std::vector<std::int32_t> table_;
  std::int64_t bytes_ = 0, scale_bytes_ = 0;  // of a block of the largest layer
  std::vector<std::byte> memory_, scales_;
};

/// Makes a storage, and keeps what the storage does not own.
template <class S>
class storage_host {
 public:
  storage_host(strata::kv_classes const& classes, storage_room const& room)
      : classes_(classes), room_(room) {}
  S make(strata::head_scales const& scales = {}) {
    return make_storage<S>(classes_, room_, {}, scales);
  }

 private:
  strata::kv_classes classes_;
  storage_room room_;
};

template <class K, class V>
class storage_host<strata::borrowed_storage<K, V>> {
 public:
  storage_host(strata::kv_classes const& classes, storage_room const& room)
      : classes_(classes),
        room_(room),
        k_(classes, room, &strata::kv_class::k_dim, 80),
        v_(classes, room, &strata::kv_class::v_dim, 81) {}

  strata::borrowed_storage<K, V> make(strata::head_scales const& scales = {}) {
    std::vector<strata::borrowed_layer> layers;
    for (strata::layer_id l{0}; classes_.num_layers() > l.index; ++l.index) {
      auto const first_row = l.index * room_.max_sequences;
      layers.push_back({k_.layer(l), v_.layer(l), first_row, first_row});
    }
    return *strata::borrowed_storage<K, V>::make(classes_, layers, room_.max_sequences,
                                                 room_.max_tokens, scales);
  }

 private:
  strata::kv_classes classes_;
  storage_room room_;
  engine_tensor<K> k_;
  engine_tensor<V> v_;
};

}  // namespace support
