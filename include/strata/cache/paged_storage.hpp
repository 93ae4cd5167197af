// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/detail/transferable_storage.hpp>

STRATA_NAMESPACE_BEGIN

template <class Storage>
class prefix_index;

/// Room of a paged storage. A block holds block_size tokens of the K (or V) of one stored layer of
/// one sequence. Beside the blocks, books take 8.3 KB and 4 bytes a token per sequence, and tables
/// of K and of V 4 bytes for every layer and block of one, for all of max_sequences and max_tokens:
/// of 256 sequences, 36 layers, 32K tokens and blocks of 16, 190 MB.
struct paged_options {
  std::int32_t max_sequences = 1;
  std::int32_t max_tokens = 0;   ///< per sequence; sizes the block tables, not the blocks
  std::int32_t block_size = 16;  ///< tokens
  std::int32_t k_blocks = 0;
  std::int32_t v_blocks = 0;
  /// Tokens that `truncate` may take back where layers have windows.
  std::int32_t max_rollback = 0;

  /// Enough for one sequence of each plan; where that is more blocks than 32 bits count, the most
  /// that they do.
  static constexpr paged_options for_plans(std::span<route_plan const> plans,
                                           std::int32_t max_tokens,
                                           std::int32_t block_size = 16) noexcept {
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    std::int64_t const per_tensor =
        max_tokens < 1 || block_size < 1 ? 0 : detail::ceil_divide(max_tokens, block_size);
    std::int64_t k = 0, v = 0;
    for (auto const& plan : plans) {
      k = detail::smaller(k + plan.k_slots * per_tensor, most);
      v = detail::smaller(v + plan.v_slots * per_tensor, most);
    }
    return {static_cast<std::int32_t>(plans.size()),
            max_tokens,
            block_size,
            static_cast<std::int32_t>(k),
            static_cast<std::int32_t>(v),
            0};
  }
};

/// Blocks of [block_size, kv_heads, dim] from two pools, one for K and one for V, handed out as
/// sequences grow. Sequences of any depth share the pools, so one batch can mix them. All blocks
/// are as large as those of the largest layer kind.
///
/// Forks share blocks until one of them writes to a block that is partly filled: then it takes a
/// copy, one block at most for every stored tensor. Layers with a window let go of blocks whose
/// tokens no later query sees, when the step is committed: within it, older rows may still read
/// them. `for_bytes` says where a sequence's bytes lie, and `import_sequence` brings one from
/// elsewhere: detail/transferable_storage.hpp. No call here may happen during a step.
/// Threads: const calls at the same time; any other call alone.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
class paged_storage : public detail::transferable_storage<KCodec, VCodec> {
  using base = detail::transferable_storage<KCodec, VCodec>;

 public:
  /// Bytes of memory that is lent to a storage.
  static result<pool_bytes> memory_bytes(kv_classes const& classes,
                                         paged_options const& options) noexcept {
    return base::memory_of(classes, blocks_of(options));
  }

  /// Allocates everything at once. With `memory`, uses that instead of its own. `scales` are those
  /// of head-scaled codecs.
  static result<paged_storage> make(kv_classes const& classes, paged_options const& options,
                                    borrowed_memory memory = {},
                                    head_scales const& scales = {}) noexcept {
    paged_storage storage;
    if (options.max_rollback < 0)
      return status{errc::bad_rollback, no_layer, options.max_rollback, 0};
    storage.max_rollback_ = options.max_rollback;
    auto const s = storage.prepare(classes, blocks_of(options), memory, scales);
    if (!s.ok()) return s;
    return result<paged_storage>(std::move(storage));  // nvcc 13 does not move by itself
  }

#if STRATA_HAS_EXCEPTIONS
  /// `make`, or throws `error`.
  paged_storage(kv_classes const& classes, paged_options const& options,
                borrowed_memory memory = {}, head_scales const& scales = {})
      : paged_storage(make(classes, options, memory, scales).value()) {}
#endif

  /// A sequence with the plan and the tokens of another, which share their blocks. Takes no block.
  result<sequence_id> fork(sequence_id parent) noexcept {
    auto const child = this->book_.fork(parent);
    if (!child.ok()) return child;
    auto const length = this->length(parent);
    for_sides([&](detail::block_pool& pool, route layer_step::* column) {
      this->for_stored(parent, column, [&](layer_id l, std::int64_t row) {
        pool.share(row, this->table_row(*child, l), length);
      });
    });
    return child;
  }

  /// Cuts a sequence down to its first `length` tokens, as if the others had never come: rejected
  /// drafts. The next position is the one after the last token that stays. Refuses where a window
  /// has let go of tokens that would be seen again: see paged_options::max_rollback.
  status truncate(sequence_id id, std::int32_t length) noexcept {
    if (auto const s = this->book_.check_truncate(id, length); !s.ok()) return s;
    if (auto const s = check_windows(id, length); !s.ok()) return s;
    auto const before = this->length(id);
    this->resize(id, before, length);
    this->book_.truncate(id, length);
    return {};
  }

  /// Lets go of layers that `plan` does not store: from here on readers read as it says. Returns the
  /// bytes that became free, not those that forks still hold. Refuses a plan with leaders that the
  /// sequence does not have.
  ///
  /// *Approximate*: later tokens read K and V of another layer than the one that the hidden states
  /// of earlier tokens came from (law 12 of strata.hpp). Exact only where nothing was stored yet.
  result<pool_bytes> shrink(sequence_id id, route_plan const& plan) noexcept {
    if (auto const s = this->check_idle(id); !s.ok()) return s;
    if (auto const s = check(plan, this->classes(), use::serving); !s.ok()) return s;
    auto const& now = this->plan(id);
    if (plan == now) return pool_bytes{};
    for (layer_id l{0}; now.num_layers > l.index; ++l.index)
      if ((plan[l].k.stored && !now[l].k.stored) || (plan[l].v.stored && !now[l].v.stored))
        return status{errc::not_a_subset, l};
    std::int64_t freed[2] = {};
    auto const length = this->length(id);
    for_sides([&](detail::block_pool& pool, route layer_step::* column) {
      auto& bytes = freed[column == &layer_step::v];
      this->for_stored(id, column, [&](layer_id l, std::int64_t row) {
        if (!(plan[l].*column).stored)
          bytes += pool.give_back(row, 0, pool.blocks_for(length)) * pool.block_bytes();
      });
    });
    this->book_.set_plan(id, plan);
    this->book_.set_approximate(id);
    return pool_bytes{freed[0], freed[1]};
  }

  /// Blocks that `shrink` to a plan would free: those that nobody else holds. Of a sequence that is
  /// not open, and of another model's plan, none.
  pool_blocks freed_by_shrink(sequence_id id, route_plan const& plan) noexcept {
    if (!this->check_idle(id).ok() || plan.num_layers != this->classes().num_layers()) return {};
    std::int32_t freed[2] = {};
    auto const length = this->length(id);
    for_sides([&](detail::block_pool& pool, route layer_step::* column) {
      this->for_stored(id, column, [&](layer_id l, std::int64_t row) {
        if (!(plan[l].*column).stored)
          freed[column == &layer_step::v] += pool.count_own(row, 0, pool.blocks_for(length));
      });
    });
    return {freed[0], freed[1]};
  }

  /// The step's tokens become part of the sequences; windows let go of what they have passed.
  void commit() noexcept {
    auto const staged = this->book_.staged();  // stays readable
    base::commit();
    for (auto const& g : staged) let_go_unseen(g.sequence);
  }

  /// Whether a sequence's K and V are what its plan computes from its tokens, at positions without
  /// gaps: not after `shrink`.
  status check_exact(sequence_id id) const noexcept { return this->book_.check_exact(id); }

  writable_blocks k_blocks(layer_id layer) noexcept {
    return this->k_pool_.paged(this->k_shape(layer));
  }
  writable_blocks v_blocks(layer_id layer) noexcept {
    return this->v_pool_.paged(this->v_shape(layer));
  }
  std::int32_t k_row(sequence_id id, layer_id source) const noexcept {
    return static_cast<std::int32_t>(this->table_row(id, source));
  }
  std::int32_t v_row(sequence_id id, layer_id source) const noexcept { return k_row(id, source); }

 private:
  template <class Storage>
  friend class prefix_index;

  /// For an index of blocks, see prefix_index.hpp. Its lists are [2, num_layers]: of every layer the
  /// block of K, then the block of V, -1 where there is none.
  ///
  /// Opens a sequence of `num_tokens` tokens, whole blocks; walk(visit) calls visit(i, blocks) for
  /// block i of them, the last one first. `exact`: they were computed under this plan.
  template <class Walk>
  result<sequence_id> adopt(route_plan const& plan, std::int32_t num_tokens, bool exact,
                            Walk const& walk) noexcept {
    if (num_tokens > this->max_tokens())
      return status{errc::sequence_full, no_layer, num_tokens, this->max_tokens()};
    auto const id = this->open(plan);
    if (!id.ok()) return id;
    this->book_.adopt(*id, num_tokens);
    if (!exact) this->book_.set_approximate(*id);
    walk([&](std::int32_t index, std::int32_t const* blocks) {
      for_lists(*id, blocks, [&](auto& pool, std::int64_t row, std::int32_t const& block) {
        pool.adopt(row, index, block);
      });
    });
    let_go_unseen(*id);
    return id;
  }
  /// Holds block `index` of a sequence's tensors, too, where the list has none yet and all of its
  /// tokens are there, and lists them.
  void hold_blocks(sequence_id id, std::int32_t index, std::int32_t* blocks) noexcept {
    for_lists(id, blocks, [&](auto& pool, std::int64_t row, std::int32_t& block) {
      if (block >= 0 || index * pool.block_size() < pool.first_token(row)) return;
      block = pool.block_of(row, index);
      pool.keep(block);
    });
  }
  void let_go_blocks(std::int32_t const* blocks) noexcept {
    for_listed(blocks, [](auto& pool, std::int32_t block) { pool.forget(block); });
  }
  /// Whether none but indexes hold any of them.
  bool frees_any(std::int32_t const* blocks) noexcept {
    bool any = false;
    for_listed(blocks, [&](auto& pool, std::int32_t block) { any |= pool.only_kept(block); });
    return any;
  }

  static constexpr detail::block_options blocks_of(paged_options const& options) noexcept {
    return {options.max_sequences, options.max_tokens, options.block_size, options.k_blocks,
            options.v_blocks};
  }

  paged_storage() noexcept = default;

  template <class Body>
  void for_sides(Body const& body) noexcept {
    body(this->k_pool_, &layer_step::k);
    body(this->v_pool_, &layer_step::v);
  }

  /// Calls body(pool, row, entry of the list) for a sequence's tensors.
  template <class Block, class Body>
  void for_lists(sequence_id id, Block* blocks, Body const& body) noexcept {
    for_sides([&](detail::block_pool& pool, route layer_step::* column) {
      auto* const of_side = blocks + (column == &layer_step::v) * this->classes().num_layers();
      this->for_stored(id, column,
                       [&](layer_id l, std::int64_t row) { body(pool, row, of_side[l.index]); });
    });
  }
  /// Calls body(pool, block) for what a list names.
  template <class Body>
  void for_listed(std::int32_t const* blocks, Body const& body) noexcept {
    for_sides([&](detail::block_pool& pool, route layer_step::* column) {
      auto const layers = this->classes().num_layers();
      auto const* const of_side = blocks + (column == &layer_step::v) * layers;
      for (std::int32_t l = 0; l < layers; ++l)
        if (of_side[l] >= 0) body(pool, of_side[l]);
    });
  }

  /// The first token that a query at `position` or later sees at a layer.
  std::int32_t first_seen(sequence_id id, layer_id l, std::int64_t position) const noexcept {
    return this->book_.first_token_at(id, position - this->classes()[l].window + 1);
  }
  bool has_window(layer_id l) const noexcept {
    return this->classes()[l].window < unbounded_window;
  }

  void let_go_unseen(sequence_id id) noexcept {
    auto const position = std::int64_t{this->next_position(id)} - max_rollback_;
    for_sides([&](detail::block_pool& pool, route layer_step::* column) {
      this->for_stored(id, column, [&](layer_id l, std::int64_t row) {
        if (has_window(l)) pool.drop_before(row, first_seen(id, l, position) / pool.block_size());
      });
    });
  }

  /// Refuses a length from which on queries would see tokens that were let go.
  status check_windows(sequence_id id, std::int32_t length) noexcept {
    status outcome;
    auto const position = this->book_.position_after(id, length);
    for_sides([&](detail::block_pool& pool, route layer_step::* column) {
      this->for_stored(id, column, [&](layer_id l, std::int64_t row) {
        if (!outcome.ok() || length == 0 || !has_window(l)) return;
        auto const seen = first_seen(id, l, position);
        auto const held = pool.first_token(row);
        if (seen < held) outcome = {errc::window_let_go, l, seen, held};
      });
    });
    return outcome;
  }

  std::int32_t max_rollback_ = 0;
};

STRATA_NAMESPACE_END
