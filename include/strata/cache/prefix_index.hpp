// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Prefixes that a paged storage holds K and V of: full blocks, found again by their tokens.
//
//     auto index = *prefix_index<storage_type>::make(stack.storage(), {.max_entries = 4096});
//     prefix_owner const owner{.model = hash_of_weights, .tenant = secret};
//
//     auto const known = index.find(prompt, plan, owner);
//     auto const id = index.open(stack.between_steps(), plan, known);
//     // a step with the rest, prompt[known.num_tokens...], and its commit
//     index.insert(stack.between_steps(), *id, prompt, owner);
//     // where a step says that blocks are missing: index.evict(stack.between_steps(), k, v)
//
// A block's hash covers its tokens, all tokens before them and the owner. It only says where to
// look: tokens, owner and plan are compared, block by block. The index holds its blocks when no
// sequence does any more, until they are evicted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include <strata/cache/prefix.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/math.hpp>
#include <strata/detail/prefix_entries.hpp>
#include <strata/geometry.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

struct prefix_options {
  std::int32_t max_entries = 0;  ///< blocks of tokens, each with its K and V of all stored layers
  std::int32_t max_plans = 16;   ///< different ones at a time, 8 KB each
};

/// Of one storage, which `clear` should meet before the index goes: calls with another are refused,
/// or do nothing. Nothing is allocated after `make`. Threads: `find` and `size` at the same time,
/// whatever the storage does; any other call alone, the storage's included.
template <class Storage>
class prefix_index {
 public:
  static result<prefix_index> make(Storage const& storage, prefix_options const& options) noexcept {
    if (options.max_entries < 1)
      return status{errc::value_too_small, no_layer, options.max_entries, 1};
    if (options.max_plans < 1) return status{errc::value_too_small, no_layer, options.max_plans, 1};
    prefix_index index;
    index.classes_ = storage.classes();
    index.storage_ = storage.identity();
    index.block_size_ = storage.block_size();
    auto const per_entry = 2 * std::int64_t{index.classes_.num_layers()};
    auto const s = index.entries_.prepare(options.max_entries, index.block_size_, per_entry);
    if (!s.ok()) return s;
    if (auto const grown = index.plans_.assign(options.max_plans, {}); !grown.ok()) return grown;
    return result<prefix_index>(std::move(index));
  }

  /// Blocks of tokens that it knows.
  std::int32_t size() const noexcept { return entries_.size(); }

  /// The longest known prefix of a prompt, but for at least one token: somebody has to compute
  /// logits. Costs a hash, a look and a comparison for every block of each plan that will do.
  prefix_match find(std::span<std::int32_t const> prompt, route_plan const& plan,
                    prefix_owner const& owner, reuse how = reuse::exact) const noexcept {
    prefix_match best;
    if (prompt.empty()) return best;
    auto const most = prompt.first(prompt.size() - 1);
    for (std::int32_t p = 0; p < plans_.size(); ++p) {
      if (plans_[p].num_entries == 0) continue;
      bool const same = plans_[p].plan == plan;
      if (!same && (how == reuse::exact || !stores_all(plans_[p].plan, plan))) continue;
      auto const match = usable(known(most, owner, p), plan);
      bool const better = match.num_tokens > best.num_tokens ||
                          (match.num_tokens == best.num_tokens && match.num_tokens > 0 && same);
      if (better) best = {match.num_tokens, match.entry, version_, same};
    }
    return best;
  }

  /// A sequence that holds what was found: the next step brings the tokens after those. Takes no
  /// block. Where nothing was found, an empty one.
  result<sequence_id> open(Storage& storage, route_plan const& plan,
                           prefix_match const& found) noexcept {
    if (!of(storage)) return status{errc::other_storage};
    if (found.entry < 0) return storage.open(plan);
    if (found.version != version_) return status{errc::stale_match};
    auto const& known = plans_[entries_[found.entry].plan].plan;
    // Of another plan than was asked for: what was found says nothing of it.
    if (found.exact ? !(known == plan) : !stores_all(known, plan)) return status{errc::stale_match};
    auto const id = storage.adopt(plan, found.num_tokens, found.exact, [&](auto const& visit) {
      auto block = found.num_tokens / block_size_;
      for (auto e = found.entry; e >= 0; e = entries_[e].before) visit(--block, entries_.blocks(e));
    });
    if (id.ok()) entries_.touch(found.entry);
    return id;
  }

  /// Learns the full blocks of a sequence, whose tokens from the first on are given; more than it
  /// has are not looked at. Of layers with a window it learns what they still hold: a long prompt is
  /// to be learnt chunk by chunk, or whoever begins like it and ends sooner finds nothing. Looks at
  /// all tokens: once for a prompt and some times later, not for every token. Forgets what was not
  /// used for longest where there is no room. Returns how many blocks of the sequence it knows then.
  /// Refuses what is not exact and would not say so to others: sequences that shrank or began with a
  /// `reuse::subset`, and those with gaps between positions.
  result<std::int32_t> insert(Storage& storage, sequence_id id,
                              std::span<std::int32_t const> tokens,
                              prefix_owner const& owner) noexcept {
    if (!of(storage)) return status{errc::other_storage};
    if (auto const s = storage.check_exact(id); !s.ok()) return s;
    auto const length = storage.length(id);
    if (std::cmp_less(tokens.size(), length))
      return status{errc::too_few_tokens, no_layer, static_cast<std::int64_t>(tokens.size()),
                    length};
    auto const p = plan_number(storage.plan(id));
    if (p < 0) return status{errc::too_many_plans, no_layer, plans_.size(), plans_.size()};
    tokens = tokens.first(static_cast<std::size_t>(length));
    auto at = known(tokens, owner, p);
    entries_.touch(at.entry);
    fill_gaps(storage, id, at);
    ++version_;
    for (; length - at.num_tokens >= block_size_; at.num_tokens += block_size_) {
      if (entries_.full() && !forget_oldest(storage, at.entry)) break;
      auto const block = block_of(tokens, at.num_tokens);
      auto const before = at.entry;
      at.hash = detail::block_hash(at.hash, block);
      detail::prefix_entry const entry{at.hash, owner, before, p, 0, -1, -1};
      at.entry = entries_.add(entry, block);
      ++plans_[p].num_entries;
      auto* const blocks = entries_.blocks(at.entry);
      std::fill_n(blocks, 2 * classes_.num_layers(), -1);
      storage.hold_blocks(id, at.num_tokens / block_size_, blocks);
    }
    entries_.touch(at.entry);
    return at.num_tokens / block_size_;
  }

  /// Forgets blocks, those first that were not used for longest, until so many of K and of V became
  /// free or none would; those that sequences hold stay. Returns how many did.
  pool_blocks evict(Storage& storage, std::int32_t k, std::int32_t v) noexcept {
    pool_blocks freed;
    if (!of(storage)) return freed;
    auto const k_before = storage.free_k_blocks(), v_before = storage.free_v_blocks();
    for (auto e = entries_.oldest(); e >= 0 && (freed.k < k || freed.v < v);) {
      auto const newer = entries_.newer_than(e);
      if (entries_[e].num_after == 0 && storage.frees_any(entries_.blocks(e))) {
        forget(storage, e);  // what comes before it is newer, and may go after it
      }
      e = newer;
      freed = {storage.free_k_blocks() - k_before, storage.free_v_blocks() - v_before};
    }
    return freed;
  }

  /// Forgets everything.
  void clear(Storage& storage) noexcept {
    while (of(storage) && entries_.oldest() >= 0) forget(storage, entries_.oldest());
  }

 private:
  bool of(Storage const& storage) const noexcept { return storage.identity() == storage_; }

  /// A prefix in the making.
  struct chain {
    std::uint64_t hash = 0;
    std::int32_t num_tokens = 0;
    std::int32_t entry = -1;
  };

  std::span<std::int32_t const> block_of(std::span<std::int32_t const> tokens,
                                         std::int32_t first) const noexcept {
    return tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(block_size_));
  }

  /// All blocks that are known of a plan.
  chain known(std::span<std::int32_t const> tokens, prefix_owner const& owner,
              std::int32_t plan) const noexcept {
    chain c{detail::owner_hash(owner), 0, -1};
    auto const length = static_cast<std::int32_t>(tokens.size());
    while (length - c.num_tokens >= block_size_) {
      auto const block = block_of(tokens, c.num_tokens);
      auto const hash = detail::block_hash(c.hash, block);
      auto const entry = entries_.find(hash, c.entry, owner, plan, block);
      if (entry < 0) break;
      c = {hash, c.num_tokens + block_size_, entry};
    }
    return c;
  }

  /// So much of a prefix that windows have let go of nothing that the next token sees.
  chain usable(chain c, route_plan const& plan) const noexcept {
    while (c.entry >= 0 && !complete(c, plan)) {
      c.num_tokens -= block_size_;
      c.entry = entries_[c.entry].before;
    }
    return c;
  }
  bool complete(chain const& c, route_plan const& plan) const noexcept {
    auto const layers = plan.num_layers;
    auto block = c.num_tokens / block_size_;
    for (auto e = c.entry; e >= 0; e = entries_[e].before) {
      --block;
      auto const* const held = entries_.blocks(e);
      bool seen_by_any = false;
      for (layer_id l{0}; layers > l.index; ++l.index) {
        auto const window = classes_[l].window;
        auto const first = detail::larger<std::int64_t>(std::int64_t{c.num_tokens} - window + 1, 0);
        if (window < unbounded_window && (block + 1) * std::int64_t{block_size_} <= first) continue;
        if (window == unbounded_window) continue;  // those hold all of their blocks
        seen_by_any = true;
        if (plan[l].k.stored && held[l.index] < 0) return false;
        if (plan[l].v.stored && held[layers + l.index] < 0) return false;
      }
      if (!seen_by_any) return true;
    }
    return true;
  }

  static bool stores_all(route_plan const& plan, route_plan const& fewer) noexcept {
    if (plan.num_layers != fewer.num_layers) return false;
    for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
      if ((fewer[l].k.stored && !plan[l].k.stored) || (fewer[l].v.stored && !plan[l].v.stored))
        return false;
    return true;
  }

  /// Where a plan is, a new one with no entries yet; -1: there is no room for it.
  std::int32_t plan_number(route_plan const& plan) noexcept {
    std::int32_t unused = -1;
    for (std::int32_t p = 0; p < plans_.size(); ++p) {
      if (plans_[p].num_entries == 0)
        unused = unused < 0 ? p : unused;
      else if (plans_[p].plan == plan)
        return p;
    }
    if (unused >= 0) plans_[unused].plan = plan;
    return unused;
  }

  /// Blocks of layers with a window that were let go before they were learnt, where this sequence
  /// still has them.
  void fill_gaps(Storage& storage, sequence_id id, chain const& known) noexcept {
    bool windows = false;
    for (std::int32_t kind = 0; kind < classes_.num_kinds(); ++kind)
      windows = windows || classes_.kind(kind).window < unbounded_window;
    auto block = known.num_tokens / block_size_;
    for (auto e = known.entry; windows && e >= 0; e = entries_[e].before)
      storage.hold_blocks(id, --block, entries_.blocks(e));
  }

  bool forget_oldest(Storage& storage, std::int32_t but_for) noexcept {
    auto const oldest = entries_.oldest();
    if (oldest == but_for || entries_[oldest].num_after > 0) return false;
    forget(storage, oldest);
    return true;
  }
  void forget(Storage& storage, std::int32_t entry) noexcept {
    ++version_;
    storage.let_go_blocks(entries_.blocks(entry));
    --plans_[entries_[entry].plan].num_entries;
    entries_.remove(entry);
  }

  std::uint64_t storage_ = 0;  // whose blocks these are
  kv_classes classes_;
  std::int32_t block_size_ = 0;
  std::uint64_t version_ = 0;  // of what matches point to
  detail::prefix_entries entries_;
  detail::array<detail::known_plan> plans_;  // [max_plans]
};

STRATA_NAMESPACE_END
