// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What contiguous_storage and paged_storage share: sequences over a pool of K blocks and a pool of
// V blocks. They differ in how long a block is and in whether a reader needs a block table.
#pragma once

#include <atomic>
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

  /// Tokens of a block.
  std::int32_t block_size() const noexcept { return k_pool_.block_size(); }

  /// Tells it, wherever it moves, from all other storages of the program.
  std::uint64_t identity() const noexcept { return identity_; }

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
    if (auto const s = check_idle(id); !s.ok()) return s;
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

  /// Changes whenever a sequence's rows of these tables change otherwise than by a step's new tokens
  /// (forks, prefixes, imports, copies that a step took back), and is 0 until then.
  std::uint64_t table_version(sequence_id id) const noexcept { return book_.table_version(id); }
  /// Blocks that a step in progress copied because forks share them. Of a device's memory the copies
  /// are still to be made, before the step's first append.
  std::span<block_copy const> k_copies() const noexcept { return k_pool_.copies(); }
  std::span<block_copy const> v_copies() const noexcept { return v_pool_.copies(); }

  /// The tables that views of this storage point to, as long as it lives; all of each.
  storage_tables tables() const noexcept {
    return {k_pool_.table(),    v_pool_.table(), book_.all_positions(),
            book_.max_tokens(), scales_.k.all(), scales_.v.all()};
  }

  /// How many blocks more than are free `reserve` would take: what is to be freed before it, of K and
  /// of V. Refuses what `reserve` refuses for other reasons.
  result<pool_blocks> missing_blocks(std::span<growth const> growths) noexcept {
    if (auto const s = book_.check(growths); !s.ok()) return s;
    auto const k = blocks_needed(k_pool_, growths, &layer_step::k).all() - k_pool_.num_free();
    auto const v = blocks_needed(v_pool_, growths, &layer_step::v).all() - v_pool_.num_free();
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    return pool_blocks{static_cast<std::int32_t>(smaller(larger<std::int64_t>(k, 0), most)),
                       static_cast<std::int32_t>(smaller(larger<std::int64_t>(v, 0), most))};
  }

  status reserve(std::span<growth const> growths) noexcept {
    if (auto const s = book_.check(growths); !s.ok()) return s;
    auto const k = blocks_needed(k_pool_, growths, &layer_step::k);
    auto const v = blocks_needed(v_pool_, growths, &layer_step::v);
    if (auto const s = check_room(0, k.all(), v.all()); !s.ok()) return s;
    if (k.copies > 0) own_blocks(k_pool_, growths, &layer_step::k);
    if (v.copies > 0) own_blocks(v_pool_, growths, &layer_step::v);
    for (auto const& g : growths) {
      auto const now = book_.length(g.sequence);
      resize(g.sequence, now, now + g.new_tokens);
    }
    book_.stage(growths);
    return {};
  }

  void commit() noexcept {
    k_pool_.forget_copies();
    v_pool_.forget_copies();
    book_.commit();
  }

  void abandon() noexcept {
    auto const staged = book_.staged();
    for (auto i = staged.size(); i > 0; --i) {
      auto const& g = staged[i - 1];
      auto const now = book_.length(g.sequence);
      resize(g.sequence, now + g.new_tokens, now);
    }
    bool copied = false;
    while (k_pool_.undo_copy() || v_pool_.undo_copy()) copied = true;
    for (auto const& g : staged)
      if (copied) book_.note_tables(g.sequence);
    book_.forget();
  }

  /// Refuses a sequence that is not open, and a step in progress.
  status check_idle(sequence_id id) const noexcept { return book_.check_idle(id); }
  /// Refuses where there is no room for so many sequences and blocks more.
  status check_room(std::int64_t sequences, std::int64_t k_blocks,
                    std::int64_t v_blocks) const noexcept {
    if (sequences > book_.num_closed())
      return {errc::too_many_sequences, no_layer, sequences, max_sequences()};
    auto const k_missing = k_blocks - k_pool_.num_free(), v_missing = v_blocks - v_pool_.num_free();
    if (k_missing > 0 && k_missing >= v_missing)
      return {errc::out_of_k_blocks, no_layer, k_missing, k_pool_.num_free()};
    if (v_missing > 0) return {errc::out_of_v_blocks, no_layer, v_missing, v_pool_.num_free()};
    return {};
  }

  /// [length], where a sequence's tokens stand.
  std::span<std::int32_t const> token_positions(sequence_id id) const noexcept {
    return book_.positions_of_tokens(id);
  }
  /// Whether some of its K and V are not what its plan computes: it shrank, or took over another's.
  bool approximate(sequence_id id) const noexcept { return book_.approximate(id); }

 protected:
  status prepare(kv_classes const& classes, block_options const& options, borrowed_memory memory,
                 head_scales const& scales) noexcept {
    if (auto const s = classes.check(); !s.ok()) return s;
    if (auto const s = book_.prepare(options.max_sequences, options.max_tokens); !s.ok()) return s;
    if (options.block_size < 1) return {errc::bad_block_size, no_layer, options.block_size, 1};
    if (overlap(memory)) return {errc::memory_overlaps};
    if (auto const s = scales_.prepare<KCodec, VCodec>(classes, scales); !s.ok()) return s;
    if (auto const s = take_classes(classes, options.block_size); !s.ok()) return s;
    identity_ = next_identity();
    block_pool::sizes sizes;
    sizes.block_size = options.block_size;
    sizes.num_rows = std::int64_t{options.max_sequences} * classes.num_layers();
    sizes.num_layers = classes.num_layers();
    sizes.blocks_per_row = ceil_divide(options.max_tokens, options.block_size);
    sizes.block_bytes = largest_block(&block_storage::k_shape, options.block_size);
    sizes.num_blocks = options.k_blocks;
    if (auto const s = k_pool_.prepare(sizes, memory.k, memory.on_device); !s.ok()) return s;
    sizes.block_bytes = largest_block(&block_storage::v_shape, options.block_size);
    sizes.num_blocks = options.v_blocks;
    return v_pool_.prepare(sizes, memory.v, memory.on_device);
  }

  /// What memory that is lent to such a storage has to have.
  static result<pool_bytes> memory_of(kv_classes const& classes,
                                      block_options const& options) noexcept {
    if (auto const s = classes.check(); !s.ok()) return s;
    if (options.block_size < 1)
      return status{errc::bad_block_size, no_layer, options.block_size, 1};
    block_storage asked;
    if (auto const s = asked.take_classes(classes, options.block_size); !s.ok()) return s;
    auto const all = [&](row_shape (block_storage::*shape)(layer_id) const noexcept,
                         std::int32_t blocks) {
      return checked_multiply(asked.largest_block(shape, options.block_size), blocks);
    };
    auto const k = all(&block_storage::k_shape, options.k_blocks);
    auto const v = all(&block_storage::v_shape, options.v_blocks);
    if (!k.ok()) return k.state();
    if (!v.ok()) return v.state();
    return pool_bytes{*k, *v};
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

  /// Calls body(layer, its row) for the tensors of K (or V) that a sequence stores.
  template <class Body>
  void for_stored(sequence_id id, route layer_step::* column, Body const& body) const noexcept {
    auto const& plan = book_.plan(id);
    for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
      if ((plan[l].*column).stored) body(l, table_row(id, l));
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
    if (now == then) return;
    if (now < then) {
      for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
        if ((plan[l].*column).stored) pool.take(table_row(id, l), now, then);
    } else {
      for (layer_id l{plan.num_layers - 1}; l.valid(); --l.index)
        if ((plan[l].*column).stored) pool.give_back(table_row(id, l), then, now);
    }
  }

  block_pool k_pool_;
  block_pool v_pool_;
  sequence_book book_;

 private:
  /// Refuses those whose blocks are too large to be counted.
  status take_classes(kv_classes const& classes, std::int32_t block_size) noexcept {
    classes_ = classes;
    // Rows and scales of a block are rounded up to 64 bytes each.
    constexpr auto most_bytes = (std::numeric_limits<std::int64_t>::max)() - 128;
    for (layer_id l{0}; classes.num_layers() > l.index; ++l.index)
      for (auto const& shape : {k_shape(l), v_shape(l)})
        if (auto const bytes = checked_multiply(shape.token_bytes(), block_size);
            !bytes.ok() || *bytes > most_bytes)
          return status{errc::size_overflow, l, shape.token_bytes(), block_size};
    return {};
  }

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

  /// Calls body(row, block, tokens of the sequence) for the last block of every tensor that grows
  /// into one which is partly filled.
  template <class Body>
  void for_partial(block_pool const& pool, std::span<growth const> growths,
                   route layer_step::* column, Body const& body) const noexcept {
    for (auto const& g : growths) {
      auto const length = book_.length(g.sequence);
      if (g.new_tokens == 0 || length % pool.block_size() == 0) continue;
      auto const last = length / pool.block_size();
      for_stored(g.sequence, column, [&](layer_id, std::int64_t row) { body(row, last, length); });
    }
  }

  /// Blocks that growths need. There is a copy to make wherever others hold a block that one of them
  /// writes to.
  struct needed_blocks {
    std::int64_t fresh = 0, copies = 0;
    std::int64_t all() const noexcept { return fresh + copies; }
  };
  needed_blocks blocks_needed(block_pool& pool, std::span<growth const> growths,
                              route layer_step::* column) noexcept {
    needed_blocks count{0, copies_needed(pool, growths, column)};
    for (auto const& g : growths) {
      auto const now = book_.length(g.sequence), then = now + g.new_tokens;
      auto const& plan = book_.plan(g.sequence);
      auto const slots = column == &layer_step::k ? plan.k_slots : plan.v_slots;
      count.fresh += std::int64_t{pool.blocks_for(then) - pool.blocks_for(now)} * slots;
    }
    return count;
  }

  /// Blocks that growths need because others hold those that they would write to.
  std::int64_t copies_needed(block_pool& pool, std::span<growth const> growths,
                             route layer_step::* column) noexcept {
    if (!pool.shares()) return 0;
    std::int64_t count = 0;
    for_partial(pool, growths, column, [&](std::int64_t row, std::int32_t block, std::int32_t) {
      count += pool.count_writer(row, block);
    });
    for_partial(pool, growths, column, [&](std::int64_t row, std::int32_t block, std::int32_t) {
      pool.forget_writer(row, block);
    });
    return count;
  }
  /// Where all who hold a block write to it, the longest keeps it: a shorter one would write over
  /// its tokens, which are there again when the step is abandoned.
  void own_blocks(block_pool& pool, std::span<growth const> growths,
                  route layer_step::* column) noexcept {
    for_partial(pool, growths, column,
                [&](std::int64_t row, std::int32_t block, std::int32_t filled) {
                  pool.note_length(row, block, filled);
                });
    for_partial(pool, growths, column,
                [&](std::int64_t row, std::int32_t block, std::int32_t filled) {
                  if (filled < pool.noted_length(row, block) && pool.shared(row, block))
                    pool.own(row, block);
                });
    for_partial(pool, growths, column, [&](std::int64_t row, std::int32_t block, std::int32_t) {
      pool.forget_writer(row, block);
      if (pool.shared(row, block)) pool.own(row, block);
    });
  }

  static std::uint64_t next_identity() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
  }

  kv_classes classes_;
  head_scale_tables scales_;
  std::uint64_t identity_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
