// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The entries of a prefix index: a hash table over a fixed number of them, and the order in which
// they were used last.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include <strata/cache/prefix.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Mixes 64 bits (the finaliser of SplitMix64).
constexpr std::uint64_t mixed(std::uint64_t x) noexcept {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
  x = (x ^ x >> 27) * 0x94D049BB133111EBU;
  return x ^ x >> 31;
}

/// The hash of a block, from that of the one before it, or of its owner.
constexpr std::uint64_t block_hash(std::uint64_t before,
                                   std::span<std::int32_t const> tokens) noexcept {
  auto hash = before;
  for (auto const token : tokens)
    hash = (std::rotl(hash, 23) ^ static_cast<std::uint32_t>(token)) * 0x9E3779B97F4A7C15U;
  return mixed(hash);
}
constexpr std::uint64_t owner_hash(prefix_owner const& owner) noexcept {
  return mixed(mixed(mixed(owner.model) + owner.adapter) + owner.tenant);
}

/// One block of a prefix.
struct prefix_entry {
  std::uint64_t hash = 0;
  prefix_owner owner;
  std::int32_t before = -1;  // the entry of the block before; -1: none
  std::int32_t plan = -1;
  std::int32_t num_after = 0;  // entries whose `before` this is
  std::int32_t newer = -1, older = -1;
};

/// A plan that entries were computed under.
struct known_plan {
  route_plan plan = {};
  std::int32_t num_entries = 0;
};

/// Not thread-safe; nothing is allocated after `prepare`.
class prefix_entries {
 public:
  status prepare(std::int32_t max_entries, std::int32_t block_size,
                 std::int64_t blocks_per_entry) noexcept {
    auto const buckets = std::bit_ceil(2 * static_cast<std::uint64_t>(max_entries));
    auto const tokens = checked_multiply(max_entries, block_size);
    auto const blocks = checked_multiply(max_entries, blocks_per_entry);
    if (!tokens.ok()) return tokens.state();
    if (!blocks.ok()) return blocks.state();
    status const outcomes[] = {buckets_.assign(static_cast<std::int64_t>(buckets), -1),
                               entries_.assign(max_entries, {}), tokens_.grow(*tokens),
                               blocks_.grow(*blocks), free_.grow(max_entries)};
    for (auto const& outcome : outcomes)
      if (!outcome.ok()) return outcome;
    block_size_ = block_size;
    blocks_per_entry_ = blocks_per_entry;
    num_free_ = max_entries;
    for (std::int32_t i = 0; i < num_free_; ++i) free_[i] = num_free_ - 1 - i;
    return {};
  }

  std::int32_t size() const noexcept {
    return static_cast<std::int32_t>(entries_.size()) - num_free_;
  }
  bool full() const noexcept { return num_free_ == 0; }
  prefix_entry const& operator[](std::int32_t entry) const noexcept { return entries_[entry]; }
  /// [blocks_per_entry]
  std::int32_t* blocks(std::int32_t entry) noexcept {
    return blocks_.data() + entry * blocks_per_entry_;
  }
  std::int32_t const* blocks(std::int32_t entry) const noexcept {
    return blocks_.data() + entry * blocks_per_entry_;
  }
  /// The entry that was not used for longest, or -1; and the next newer one.
  std::int32_t oldest() const noexcept { return oldest_; }
  std::int32_t newer_than(std::int32_t entry) const noexcept { return entries_[entry].newer; }

  /// The entry of these tokens after `before`, for this owner and plan; -1: there is none.
  std::int32_t find(std::uint64_t hash, std::int32_t before, prefix_owner const& owner,
                    std::int32_t plan, std::span<std::int32_t const> tokens) const noexcept {
    for (auto at = bucket_of(hash); buckets_[at] >= 0; at = next(at)) {
      auto const entry = buckets_[at];
      auto const& e = entries_[entry];
      if (e.hash == hash && e.before == before && e.plan == plan && e.owner == owner &&
          std::equal(tokens.begin(), tokens.end(), tokens_of(entry)))
        return entry;
    }
    return -1;
  }

  /// A new entry, the one used last. There must be room.
  std::int32_t add(prefix_entry const& what, std::span<std::int32_t const> tokens) noexcept {
    auto const entry = free_[--num_free_];
    entries_[entry] = what;
    std::copy(tokens.begin(), tokens.end(), tokens_.data() + std::int64_t{entry} * block_size_);
    auto at = bucket_of(what.hash);
    while (buckets_[at] >= 0) at = next(at);
    buckets_[at] = entry;
    if (what.before >= 0) ++entries_[what.before].num_after;
    link(entry);
    return entry;
  }

  /// Removes an entry that none comes after.
  void remove(std::int32_t entry) noexcept {
    auto const& e = entries_[entry];
    STRATA_ASSERT(e.num_after == 0);
    if (e.before >= 0) --entries_[e.before].num_after;
    auto at = bucket_of(e.hash);
    while (buckets_[at] != entry) at = next(at);
    close_gap(at);
    unlink(entry);
    free_[num_free_++] = entry;
  }

  /// The entry was used last, and those before it later still: so that the oldest one of all has
  /// none after it.
  void touch(std::int32_t entry) noexcept {
    for (; entry >= 0; entry = entries_[entry].before) {
      unlink(entry);
      link(entry);
    }
  }

 private:
  std::int64_t bucket_of(std::uint64_t hash) const noexcept {
    return static_cast<std::int64_t>(hash & (static_cast<std::uint64_t>(buckets_.size()) - 1));
  }
  std::int64_t next(std::int64_t at) const noexcept { return (at + 1) & (buckets_.size() - 1); }
  std::int32_t const* tokens_of(std::int32_t entry) const noexcept {
    return tokens_.data() + std::int64_t{entry} * block_size_;
  }

  /// Moves up what a probe would no longer reach across an empty bucket.
  void close_gap(std::int64_t gap) noexcept {
    auto const mask = buckets_.size() - 1;
    for (auto at = next(gap); buckets_[at] >= 0; at = next(at)) {
      auto const home = bucket_of(entries_[buckets_[at]].hash);
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      buckets_[gap] = buckets_[at];
      gap = at;
    }
    buckets_[gap] = -1;
  }

  void link(std::int32_t entry) noexcept {
    auto& e = entries_[entry];
    e.older = newest_;
    e.newer = -1;
    (newest_ >= 0 ? entries_[newest_].newer : oldest_) = entry;
    newest_ = entry;
  }
  void unlink(std::int32_t entry) noexcept {
    auto const& e = entries_[entry];
    (e.newer >= 0 ? entries_[e.newer].older : newest_) = e.older;
    (e.older >= 0 ? entries_[e.older].newer : oldest_) = e.newer;
  }

  array<std::int32_t> buckets_;  // [a power of two], an entry, or -1
  array<prefix_entry> entries_;  // [max_entries]
  array<std::int32_t> tokens_;   // [max_entries, block_size]
  array<std::int32_t> blocks_;   // [max_entries, blocks_per_entry]
  array<std::int32_t> free_;     // [max_entries]
  std::int32_t num_free_ = 0, newest_ = -1, oldest_ = -1;
  std::int32_t block_size_ = 0;
  std::int64_t blocks_per_entry_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
