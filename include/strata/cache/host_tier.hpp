// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A tier of host memory under a cache: whole sequences leave a storage, so that others get their
// blocks, and come back later as they were, bit for bit. What `shrink` is too little for, and
// nobody wants to compute again.
//
//     auto tier = *host_tier<>::make(storage, {.bytes = std::int64_t{8} << 30});
//     auto const away = tier.offload(storage, id);  // `id` is closed, its blocks are free
//     if (!away.ok()) ...                           // nothing happened: the tier is full
//     ...
//     auto const back = tier.reload(storage, *away);
//     if (!back.ok()) ...                           // blocks are missing: it stays in the tier
//
// Where K and V lie on a device, another copier does the same: cuda/host_tier.cuh.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/large_memory.hpp>
#include <strata/detail/math.hpp>
#include <strata/detail/tier_copy.hpp>
#include <strata/detail/tier_pages.hpp>
#include <strata/detail/tier_records.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// How bytes get into a tier and out of it.
///
/// - `C::memory::make(copier, bytes)` takes the tier's memory; `data()` is where it begins. Its
///   destructor waits for copies that are under way.
/// - `copy(to, from, bytes)` may still be under way when it returns. Copies happen in their order,
///   and in that of whatever else reads and writes the storages' blocks.
/// - `wait()` until all copies are done.
///
/// One that reaches K and V of a device says so by a constant `on_device`, as storages do.
template <class C>
concept tier_copier = requires(C& c, std::int64_t size, std::byte* to, std::byte const* from,
                               std::size_t bytes, typename C::memory& memory) {
  { C::memory::make(c, size) } noexcept -> std::same_as<result<typename C::memory>>;
  { memory.data() } noexcept -> std::same_as<std::byte*>;
  { c.copy(to, from, bytes) } noexcept -> std::same_as<status>;
  { c.wait() } noexcept -> std::same_as<status>;
};

/// Of the host's memory, at once.
struct host_copier {
  struct memory : detail::large_memory {
    static result<memory> make(host_copier const&, std::int64_t bytes) noexcept {
      memory made;
      if (auto const s = made.allocate(bytes); !s.ok()) return s;
      return result<memory>(std::move(made));  // nvcc 13 does not move by itself
    }
  };
  status copy(std::byte* to, std::byte const* from, std::size_t bytes) const noexcept {
    std::memcpy(to, from, bytes);
    return {};
  }
  status wait() const noexcept { return {}; }
};

struct host_tier_options {
  std::int64_t bytes = 0;           ///< of memory for K and V, all that it will ever take
  std::int32_t max_sequences = 64;  ///< at a time; each is 10 KB of books and 4 bytes for a token
  std::int32_t page_bytes = 64 << 10;  ///< a sequence takes whole pages
};

/// A sequence in a tier. Ids of those that left it are not used again.
struct tier_id {
  std::int32_t place = -1;
  std::uint32_t turn = 0;

  friend constexpr bool operator==(tier_id, tier_id) noexcept = default;
};

/// Keeps sequences as they were in a storage: plan, positions, approximate or not, and the bytes of
/// all tokens that the layers still hold. They may come back to any storage of the same model,
/// codecs and head scales, contiguous or paged, in blocks of any length. What forks or an index of
/// prefixes share with them stays in the storage with those and comes back as a copy.
///
/// Takes all its memory in `make`; what it has not used yet takes no pages of the system, unless the
/// copier's memory does. Not thread-safe. No call here may happen during a step of the storage.
template <tier_copier Copier = host_copier>
class host_tier {
 public:
  /// For sequences of a storage, and of others like it that are no longer than its may be.
  template <class Storage>
  static result<host_tier> make(Storage const& storage, host_tier_options const& options,
                                Copier copier = {}) noexcept {
    host_tier tier(std::move(copier));
    if (auto const s = tier.prepare(options, storage.max_tokens()); !s.ok()) return s;
    if (auto const s = tier.fingerprint_.take(storage); !s.ok()) return s;
    return result<host_tier>(std::move(tier));  // nvcc 13 does not move by itself
  }

  /// Copies a sequence here and closes it there: the blocks that nobody else holds are free at once.
  /// Where the tier has no room the status says how many bytes are missing, and nothing happened.
  template <class Storage>
  result<tier_id> offload(Storage& storage, sequence_id id) noexcept {
    auto const pages = pages_for(storage, id);
    if (!pages.ok()) return pages.state();
    auto const place = records_.first_empty();
    if (place < 0)
      return status{errc::too_many_sequences, no_layer, records_.most(), records_.most()};
    if (auto const missing = *pages - pages_.num_free(); missing > 0)
      return status{errc::out_of_tier_bytes, no_layer, missing * pages_.page_bytes(), free_bytes()};
    auto const first = pages_.take(static_cast<std::int32_t>(*pages));
    detail::tier_copy copy(copier_, detail::page_walk(pages_, memory_.data(), first));
    if (auto const s = copy.out(storage, id); !s.ok()) {
      pages_.give_back(first);
      return s;
    }
    records_.note(place, storage, id, first);
    close(storage, id);
    return tier_id{place, records_.turn(place)};
  }

  /// Opens a sequence again and lets go of it here. Where blocks are missing there, the status says
  /// how many, nothing happened, and the sequence stays here. So it does where a copy is refused.
  template <class Storage>
  result<sequence_id> reload(Storage& storage, tier_id which) noexcept {
    if (auto const s = check(storage, which); !s.ok()) return s;
    auto const id = storage.import_sequence(records_.imported(which.place));
    if (!id.ok()) return id;
    detail::page_walk const pages(pages_, memory_.data(), records_.first_page(which.place));
    if (auto const s = detail::tier_copy(copier_, pages).in(storage, *id); !s.ok()) {
      close(storage, *id);
      return s;
    }
    let_go(which);
    return id;
  }

  /// The blocks that `reload` takes: to be freed before it, where there are fewer. Refuses what it
  /// refuses for other reasons.
  template <class Storage>
  result<pool_blocks> reload_needs(Storage const& storage, tier_id which) const noexcept {
    if (auto const s = check(storage, which); !s.ok()) return s;
    return storage.import_needs(records_.imported(which.place));
  }

  /// Forgets a sequence that nobody will want back.
  status drop(tier_id which) noexcept {
    if (auto const s = check(which); !s.ok()) return s;
    let_go(which);
    return {};
  }

  /// Bytes of the tier that a sequence of a storage would take.
  template <class Storage>
  result<std::int64_t> offload_bytes(Storage const& storage, sequence_id id) const noexcept {
    auto const pages = pages_for(storage, id);
    if (!pages.ok()) return pages;
    return *pages * pages_.page_bytes();
  }

  /// Sequences that it holds.
  std::int32_t size() const noexcept { return records_.size(); }
  std::int64_t allocated_bytes() const noexcept { return num_pages_ * pages_.page_bytes(); }
  std::int64_t free_bytes() const noexcept { return pages_.num_free() * pages_.page_bytes(); }

  /// Refuses what the tier does not hold.
  status check(tier_id which) const noexcept {
    if (records_.holds(which.place, which.turn)) return {};
    return {errc::not_in_tier, no_layer, which.place, size()};
  }
  /// Of a sequence that it holds.
  route_plan const& plan(tier_id which) const noexcept {
    STRATA_ASSERT(check(which).ok());
    return records_.plan(which.place);
  }
  std::int32_t length(tier_id which) const noexcept {
    STRATA_ASSERT(check(which).ok());
    return records_.length(which.place);
  }

  /// Until what was offloaded is here and what was reloaded is there: for who reads it otherwise than
  /// in the order of the copier.
  status wait() noexcept { return copier_.wait(); }

 private:
  explicit host_tier(Copier copier) noexcept : copier_(std::move(copier)) {}

  status prepare(host_tier_options const& options, std::int32_t max_tokens) noexcept {
    if (options.page_bytes < 64) return {errc::value_too_small, no_layer, options.page_bytes, 64};
    if (options.bytes < options.page_bytes)
      return {errc::value_too_small, no_layer, options.bytes, options.page_bytes};
    auto const pages = options.bytes / options.page_bytes;
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    if (pages > most) return {errc::value_too_large, no_layer, pages, most};
    num_pages_ = static_cast<std::int32_t>(pages);
    if (auto const s = records_.prepare(options.max_sequences, max_tokens); !s.ok()) return s;
    if (auto const s = pages_.prepare(num_pages_, options.page_bytes); !s.ok()) return s;
    auto memory = Copier::memory::make(copier_, pages * options.page_bytes);
    if (!memory.ok()) return memory.state();
    memory_ = std::move(*memory);
    return {};
  }

  template <class Storage>
  status check_storage(Storage const& storage) const noexcept {
    static_assert(!on_device<Storage> || on_device<Copier>,
                  "strata: K and V of a device are not the host's to copy: give the tier a copier "
                  "that reaches them (cuda/host_tier.cuh)");
    return fingerprint_.check(storage);
  }
  template <class Storage>
  status check(Storage const& storage, tier_id which) const noexcept {
    if (auto const s = check(which); !s.ok()) return s;
    return check_storage(storage);
  }

  template <class Storage>
  result<std::int64_t> pages_for(Storage const& storage, sequence_id id) const noexcept {
    if (auto const s = storage.check_idle(id); !s.ok()) return s;
    if (auto const s = check_storage(storage); !s.ok()) return s;
    auto const length = storage.length(id), most = records_.max_tokens();
    if (length > most) return status{errc::sequence_full, no_layer, length, most};
    auto const bytes = detail::held_bytes(storage, id);
    if (!bytes.ok()) return bytes;
    return detail::ceil_divide(*bytes, pages_.page_bytes());
  }

  /// A sequence that is idle.
  template <class Storage>
  static void close(Storage& storage, sequence_id id) noexcept {
    auto const closed = storage.close(id);
    STRATA_ASSERT(closed.ok());
    static_cast<void>(closed);
  }
  void let_go(tier_id which) noexcept {
    pages_.give_back(records_.first_page(which.place));
    records_.let_go(which.place);
  }

  Copier copier_;
  detail::storage_fingerprint fingerprint_;
  detail::tier_records records_;
  detail::page_lists pages_;
  typename Copier::memory memory_;  // [pages, page_bytes]
  std::int32_t num_pages_ = 0;
};

STRATA_NAMESPACE_END
