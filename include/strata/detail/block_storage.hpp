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

  /// Tokens of a block.
  std::int32_t block_size() const noexcept { return k_pool_.block_size(); }

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
    k_needed += copies_needed(k_pool_, growths, &layer_step::k);
    v_needed += copies_needed(v_pool_, growths, &layer_step::v);
    if (auto const s = check_room(0, k_needed, v_needed); !s.ok()) return s;
    own_blocks(k_pool_, growths, &layer_step::k);
    own_blocks(v_pool_, growths, &layer_step::v);
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
    while (k_pool_.undo_copy()) {
    }
    while (v_pool_.undo_copy()) {
    }
    book_.forget();
  }

  /// Refuses a sequence that is not open, and a step in progress.
  status check_idle(sequence_id id) const noexcept {
    if (book_.in_step()) return {errc::step_in_progress};
    return book_.check_open(id);
  }
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

  /// The first token of a sequence whose K (or V) a layer still holds: windows let go of others.
  std::int32_t first_token(sequence_id id, layer_id layer, tensor which) const noexcept {
    return pool_of(which).first_of(table_row(id, layer)) * pool_of(which).block_size();
  }

  /// Where the tokens [begin, end) of a sequence lie at a layer that stores them: calls body(bytes)
  /// for one piece of memory after the other. The one door for snapshots, wires and offload. `which`:
  ///
  ///   k, v                  rows: [tokens, kv_heads, row_bytes] in all
  ///   k_scales, v_scales    [tokens, kv_heads, scale_bytes]; of a head-scaled codec the same
  ///                         [kv_heads, scale_bytes] once for every block; nothing without scales
  ///
  /// Bytes of a device are its addresses. Refuses what is not there. Not during a step.
  template <class Body>
  status for_bytes(sequence_id id, layer_id layer, tensor which, std::int32_t begin,
                   std::int32_t end, Body const& body) const noexcept {
    if (auto const s = check_bytes(id, layer, which, begin, end); !s.ok()) return s;
    bool const scales = which == tensor::k_scales || which == tensor::v_scales;
    auto const shape = is_k(which) ? k_shape(layer) : v_shape(layer);
    pool_of(which).for_bytes(
        table_row(id, layer), shape, scales, begin, end,
        [&](std::span<std::byte> bytes) { body(std::span<std::byte const>(bytes)); });
    return {};
  }

  /// A sequence as it was elsewhere, to be filled by `import_bytes`, which gives what `for_bytes`
  /// does, writable. Reserves everything or changes nothing.
  result<sequence_id> import_sequence(imported_sequence const& from) noexcept {
    if (auto const s = check_import(from); !s.ok()) return s;
    auto const id = open(from.plan);
    if (!id.ok()) return id;
    for (auto const column : {&layer_step::k, &layer_step::v})
      for_stored(*id, column, [&](layer_id l, std::int64_t row) {
        auto& pool = column == &layer_step::k ? k_pool_ : v_pool_;
        pool.take_late(row, first_block(from, column, l), pool.blocks_for(from.length));
      });
    book_.import(*id, from);
    return id;
  }
  template <class Body>
  status import_bytes(sequence_id id, layer_id layer, tensor which, std::int32_t begin,
                      std::int32_t end, Body const& body) noexcept {
    if (auto const s = check_bytes(id, layer, which, begin, end); !s.ok()) return s;
    bool const scales = which == tensor::k_scales || which == tensor::v_scales;
    auto const shape = is_k(which) ? k_shape(layer) : v_shape(layer);
    pool_of(which).for_bytes(table_row(id, layer), shape, scales, begin, end, body);
    return {};
  }
  /// Refuses what `import_sequence` would, blocks apart; how many it takes.
  result<pool_blocks> import_needs(imported_sequence const& from) const noexcept {
    if (auto const s = check_imported(from); !s.ok()) return s;
    std::int64_t needed[2] = {};
    for (auto const column : {&layer_step::k, &layer_step::v})
      for (layer_id l{0}; from.plan.num_layers > l.index; ++l.index)
        if ((from.plan[l].*column).stored)
          needed[column == &layer_step::v] +=
              k_pool_.blocks_for(from.length) - first_block(from, column, l);
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    for (auto const count : needed)
      if (count > most) return status{errc::size_overflow, no_layer, count, 1};
    return pool_blocks{static_cast<std::int32_t>(needed[0]), static_cast<std::int32_t>(needed[1])};
  }

 protected:
  status prepare(kv_classes const& classes, block_options const& options, borrowed_memory memory,
                 head_scales const& scales) noexcept {
    if (auto const s = classes.check(); !s.ok()) return s;
    if (auto const s = book_.prepare(options.max_sequences, options.max_tokens); !s.ok()) return s;
    if (options.block_size < 1) return {errc::bad_block_size, no_layer, options.block_size, 1};
    if (overlap(memory)) return {errc::memory_overlaps};
    if (auto const s = scales_.prepare<KCodec, VCodec>(classes, scales); !s.ok()) return s;
    if (auto const s = take_classes(classes, options.block_size); !s.ok()) return s;
    block_pool::sizes sizes;
    sizes.block_size = options.block_size;
    sizes.num_rows = std::int64_t{options.max_sequences} * classes.num_layers();
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
    for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
      if ((plan[l].*column).stored) pool.take(table_row(id, l), now, then);
    for (layer_id l{plan.num_layers - 1}; l.valid(); --l.index)
      if ((plan[l].*column).stored) pool.give_back(table_row(id, l), then, now);
  }

  block_pool k_pool_;
  block_pool v_pool_;
  sequence_book book_;

 private:
  static constexpr bool is_k(tensor which) noexcept {
    return which == tensor::k || which == tensor::k_scales;
  }
  block_pool const& pool_of(tensor which) const noexcept { return is_k(which) ? k_pool_ : v_pool_; }

  status check_bytes(sequence_id id, layer_id layer, tensor which, std::int32_t begin,
                     std::int32_t end) const noexcept {
    if (book_.in_step()) return {errc::step_in_progress};
    if (auto const s = book_.check_open(id); !s.ok()) return s;
    if (!layer.valid() || layer >= layer_id{classes_.num_layers()})
      return {errc::layer_out_of_range, layer, layer.index, classes_.num_layers()};
    auto const& routes = book_.plan(id)[layer];
    if (!(is_k(which) ? routes.k : routes.v).stored) return {errc::layer_stores_nothing, layer};
    auto const first = first_token(id, layer, which);
    if (begin < first || begin > end) return {errc::value_too_small, layer, begin, first};
    if (end > book_.length(id)) return {errc::value_too_large, layer, end, book_.length(id)};
    return {};
  }

  /// The first token of an imported sequence that its next query sees at a layer.
  std::int32_t first_seen(imported_sequence const& from, layer_id l) const noexcept {
    auto const position = [&](std::int32_t t) {
      return from.positions.empty() ? t : from.positions[static_cast<std::size_t>(t)];
    };
    auto const window = classes_[l].window;
    if (window == unbounded_window || from.length == 0) return 0;
    auto const next = std::int64_t{position(from.length - 1)} + 1;
    std::int32_t t = 0;
    while (t < from.length && next - position(t) >= window) ++t;
    return t;
  }

  /// The first block that an imported sequence has of a layer.
  std::int32_t first_block(imported_sequence const& from, route layer_step::* column,
                           layer_id l) const noexcept {
    if (from.first_tokens.empty()) return 0;
    auto const at = l.index + (column == &layer_step::v) * classes_.num_layers();
    return from.first_tokens[static_cast<std::size_t>(at)] / k_pool_.block_size();
  }
  status check_imported(imported_sequence const& from) const noexcept {
    if (auto const s = check(from.plan, classes_, use::serving); !s.ok()) return s;
    auto const layers = classes_.num_layers();
    auto const given = static_cast<std::int64_t>(from.first_tokens.size());
    if (given != 0 && given != 2 * layers)
      return {errc::layer_count_mismatch, no_layer, given, 2 * layers};
    if (auto const s = book_.check_import(from); !s.ok()) return s;
    for (std::int32_t i = 0; i < given; ++i) {
      layer_id const l{i % layers};
      auto const first = from.first_tokens[static_cast<std::size_t>(i)];
      auto const seen = first_seen(from, l);
      if (first < 0 || first > seen) return {errc::window_let_go, l, seen, first};
    }
    return {};
  }
  status check_import(imported_sequence const& from) const noexcept {
    auto const needed = import_needs(from);
    if (!needed.ok()) return needed.state();
    return check_room(1, needed->k, needed->v);
  }

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

  /// Calls body(row, block) for the last block of every tensor that grows into one which is partly
  /// filled.
  template <class Body>
  void for_partial(block_pool const& pool, std::span<growth const> growths,
                   route layer_step::* column, Body const& body) const noexcept {
    for (auto const& g : growths) {
      auto const length = book_.length(g.sequence);
      if (g.new_tokens == 0 || length % pool.block_size() == 0) continue;
      auto const last = length / pool.block_size();
      for_stored(g.sequence, column, [&](layer_id, std::int64_t row) { body(row, last); });
    }
  }

  /// Blocks that growths need because others hold those that they would write to.
  std::int64_t copies_needed(block_pool& pool, std::span<growth const> growths,
                             route layer_step::* column) noexcept {
    if (!pool.shares()) return 0;
    std::int64_t count = 0;
    for_partial(pool, growths, column, [&](std::int64_t row, std::int32_t block) {
      count += pool.count_writer(row, block);
    });
    for_partial(pool, growths, column,
                [&](std::int64_t row, std::int32_t block) { pool.forget_writer(row, block); });
    return count;
  }
  void own_blocks(block_pool& pool, std::span<growth const> growths,
                  route layer_step::* column) noexcept {
    if (!pool.shares()) return;
    for_partial(pool, growths, column, [&](std::int64_t row, std::int32_t block) {
      if (pool.shared(row, block)) pool.own(row, block);
    });
  }

  kv_classes classes_;
  head_scale_tables scales_;
};

}  // namespace detail

STRATA_NAMESPACE_END
