// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What contiguous_storage and paged_storage share: sequences over a pool of K blocks and a pool of
// V blocks. They differ in how long a block is and in whether a reader needs a block table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>

#include <strata/cache/sequence_book.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/block_pool.hpp>
#include <strata/detail/head_scale_table.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

struct block_options {
  std::int32_t max_sequences = 1;
  std::int32_t max_tokens = 0;
  std::int32_t block_size = 0;
  std::int32_t k_blocks = 0;
  std::int32_t v_blocks = 0;
};

template <kv_codec KCodec, kv_codec VCodec>
class block_storage {
 public:
  using k_codec = KCodec;
  using v_codec = VCodec;

  kv_classes const& classes() const noexcept { return classes_; }
  std::int32_t max_sequences() const noexcept { return book_.max_sequences(); }
  std::int32_t max_tokens() const noexcept { return book_.max_tokens(); }

  /// Bytes of K and V memory, used or not.
  std::int64_t allocated_bytes() const noexcept {
    return k_pool_.allocated_bytes() + v_pool_.allocated_bytes();
  }
  std::int32_t free_k_blocks() const noexcept { return k_pool_.num_free(); }
  std::int32_t free_v_blocks() const noexcept { return v_pool_.num_free(); }

  result<sequence_id> open(route_plan const& plan) noexcept {
    if (auto const s = check(plan, classes_, use::serving); !s.ok()) return s;
    return book_.open(plan, classes_.num_layers());
  }

  status close(sequence_id id) noexcept {
    if (book_.in_step()) return {errc::step_in_progress};
    if (auto const s = book_.check_open(id); !s.ok()) return s;
    resize(id, book_.length(id), 0);
    return book_.close(id);
  }

  route_plan const& plan(sequence_id id) const noexcept { return book_.plan(id); }
  std::int32_t length(sequence_id id) const noexcept { return book_.length(id); }
  std::int32_t next_position(sequence_id id) const noexcept { return book_.next_position(id); }
  position_table positions() const noexcept { return book_.positions(); }
  /// [kv_heads], of a head-scaled codec; null: all are 1.
  float const* k_head_scales(layer_id layer) const noexcept { return scales_.k.of(layer); }
  float const* v_head_scales(layer_id layer) const noexcept { return scales_.v.of(layer); }

  /// The tables that views of this storage point to, as long as it lives; all of each.
  storage_tables tables() const noexcept {
    return {k_pool_.table(),    v_pool_.table(), book_.all_positions(),
            book_.max_tokens(), scales_.k.all(), scales_.v.all()};
  }

  status reserve(std::span<growth const> growths) noexcept {
    if (auto const s = book_.check(growths); !s.ok()) return s;
    std::int64_t k_needed = 0, v_needed = 0;
    for (auto const& g : growths) {
      auto const now = book_.length(g.sequence), then = now + g.new_tokens;
      auto const& plan = book_.plan(g.sequence);
      k_needed += std::int64_t{k_pool_.blocks_for(then) - k_pool_.blocks_for(now)} * plan.k_slots;
      v_needed += std::int64_t{v_pool_.blocks_for(then) - v_pool_.blocks_for(now)} * plan.v_slots;
    }
    auto const k_missing = k_needed - k_pool_.num_free();
    auto const v_missing = v_needed - v_pool_.num_free();
    if (k_missing > 0 && k_missing >= v_missing)
      return {errc::out_of_k_blocks, no_layer, k_missing, k_pool_.num_free()};
    if (v_missing > 0) return {errc::out_of_v_blocks, no_layer, v_missing, v_pool_.num_free()};
    for (auto const& g : growths) {
      auto const now = book_.length(g.sequence);
      resize(g.sequence, now, now + g.new_tokens);
    }
    book_.stage(growths);
    return {};
  }

  void commit() noexcept { book_.commit(); }

  void abandon() noexcept {
    auto const staged = book_.staged();
    for (auto i = staged.size(); i > 0; --i) {
      auto const& g = staged[i - 1];
      auto const now = book_.length(g.sequence);
      resize(g.sequence, now + g.new_tokens, now);
    }
    book_.forget();
  }

 protected:
  status prepare(kv_classes const& classes, block_options const& options, borrowed_memory memory,
                 head_scales const& scales) noexcept {
    if (auto const s = classes.check(); !s.ok()) return s;
    if (auto const s = book_.prepare(options.max_sequences, options.max_tokens); !s.ok()) return s;
    if (options.block_size < 1) return {errc::bad_block_size, no_layer, options.block_size, 1};
    if (overlap(memory)) return {errc::memory_overlaps};
    if (auto const s = scales_.prepare<KCodec, VCodec>(classes, scales); !s.ok()) return s;
    classes_ = classes;
    // Rows and scales of a block are rounded up to 64 bytes each.
    constexpr auto most_bytes = (std::numeric_limits<std::int64_t>::max)() - 128;
    for (layer_id l{0}; classes.num_layers() > l.index; ++l.index)
      for (auto const& shape : {k_shape(l), v_shape(l)})
        if (auto const bytes = checked_multiply(shape.token_bytes(), options.block_size);
            !bytes.ok() || *bytes > most_bytes)
          return status{errc::size_overflow, l, shape.token_bytes(), options.block_size};
    block_pool::sizes sizes;
    sizes.block_size = options.block_size;
    sizes.num_rows = std::int64_t{options.max_sequences} * classes.num_layers();
    sizes.blocks_per_row = ceil_divide(options.max_tokens, options.block_size);
    sizes.block_bytes = largest_block(&block_storage::k_shape, options.block_size);
    sizes.num_blocks = options.k_blocks;
    if (auto const s = k_pool_.prepare(sizes, memory.k); !s.ok()) return s;
    sizes.block_bytes = largest_block(&block_storage::v_shape, options.block_size);
    sizes.num_blocks = options.v_blocks;
    return v_pool_.prepare(sizes, memory.v);
  }

  row_shape k_shape(layer_id layer) const noexcept {
    auto const& kv = classes_[layer].kv;
    return shape_of<KCodec>(kv.kv_heads, kv.k_dim);
  }
  row_shape v_shape(layer_id layer) const noexcept {
    auto const& kv = classes_[layer].kv;
    return shape_of<VCodec>(kv.kv_heads, kv.v_dim);
  }
  /// The row of a layer's own tensor in its pool's table.
  std::int64_t table_row(sequence_id id, layer_id layer) const noexcept {
    return std::int64_t{id.index} * classes_.num_layers() + layer.index;
  }

  block_pool k_pool_;
  block_pool v_pool_;

 private:
  static bool overlap(borrowed_memory const& memory) noexcept {
    auto const address = [](std::byte* at) { return reinterpret_cast<std::uintptr_t>(at); };
    auto const k = address(memory.k.data()), v = address(memory.v.data());
    return k != 0 && v != 0 && k < v + memory.v.size() && v < k + memory.k.size();
  }

  std::int64_t largest_block(row_shape (block_storage::*shape)(layer_id) const noexcept,
                             std::int32_t block_size) const noexcept {
    std::int64_t bytes = 64;
    for (layer_id l{0}; classes_.num_layers() > l.index; ++l.index)
      if (classes_[l].has_kv) bytes = larger(bytes, (this->*shape)(l).block_bytes(block_size));
    return bytes;
  }

  /// Gives every stored tensor of a sequence the blocks for `to` tokens, or takes blocks back.
  void resize(sequence_id id, std::int32_t from, std::int32_t to) noexcept {
    resize(k_pool_, id, &layer_step::k, from, to);
    resize(v_pool_, id, &layer_step::v, from, to);
  }
  void resize(block_pool& pool, sequence_id id, route layer_step::* column, std::int32_t from,
              std::int32_t to) noexcept {
    auto const& plan = book_.plan(id);
    auto const now = pool.blocks_for(from), then = pool.blocks_for(to);
    for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
      if ((plan[l].*column).stored) pool.take(table_row(id, l), now, then);
    for (layer_id l{plan.num_layers - 1}; l.valid(); --l.index)
      if ((plan[l].*column).stored) pool.give_back(table_row(id, l), then, now);
  }

  kv_classes classes_;
  sequence_book book_;
  head_scale_tables scales_;
};

}  // namespace detail

STRATA_NAMESPACE_END
