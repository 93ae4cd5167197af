// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a tier writes down: of its sequences all but K and V, and which storages they may come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/snapshot_writer.hpp>
#include <strata/detail/tier_copy.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// What storages have in common whose sequences are each other's to take: all that a snapshot
/// compares, but for the weights, which nobody here knows.
class storage_fingerprint {
 public:
  template <class Storage>
  status take(Storage const& storage) noexcept {
    std::int64_t size = 0;
    for_parts(storage,
              [&](auto, auto, auto bytes) { size += static_cast<std::int64_t>(bytes.size()); });
    if (auto const s = bytes_.grow(size); !s.ok()) return s;
    auto* to = bytes_.data();
    for_parts(storage, [&](auto, auto, auto bytes) {
      if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
      to += bytes.size();
    });
    return {};
  }

  template <class Storage>
  status check(Storage const& storage) const noexcept {
    status outcome;
    auto rest = bytes_.first(bytes_.size());
    for_parts(storage, [&](fingerprint_part part, layer_id l, auto bytes) {
      if (!outcome.ok()) return;
      auto const size = bytes.size();
      if (size > rest.size() || (size > 0 && std::memcmp(bytes.data(), rest.data(), size) != 0))
        outcome = {errc::tier_foreign, l, static_cast<std::int64_t>(part), 0};
      else
        rest = rest.subspan(size);
    });
    return outcome;
  }

 private:
  template <class Storage, class Out>
  static void for_parts(Storage const& storage, Out const& out) noexcept {
    for_fingerprint(storage, 0, 0, out);
  }

  array<std::byte> bytes_;
};

/// Places for sequences. The ids of those that left a place are told from the one that is there.
class tier_records {
 public:
  status prepare(std::int32_t max_sequences, std::int32_t max_tokens) noexcept {
    if (max_sequences < 1) return {errc::bad_max_sequences, no_layer, max_sequences, 1};
    auto const cells = checked_multiply(max_sequences, max_tokens);
    if (!cells.ok()) return cells.state();
    if (auto const s = records_.assign(max_sequences, {}); !s.ok()) return s;
    max_tokens_ = max_tokens;
    return positions_.grow(*cells);
  }

  std::int32_t size() const noexcept { return size_; }
  std::int32_t most() const noexcept { return static_cast<std::int32_t>(records_.size()); }
  std::int32_t max_tokens() const noexcept { return max_tokens_; }

  /// A place where nobody is; -1: there is none.
  std::int32_t first_empty() const noexcept {
    for (std::int32_t p = 0; p < records_.size(); ++p)
      if (!records_[p].used) return p;
    return -1;
  }
  bool holds(std::int32_t place, std::uint32_t turn) const noexcept {
    return place >= 0 && place < records_.size() && records_[place].used &&
           records_[place].turn == turn;
  }

  /// Which sequence of those that had this place is there, or will be.
  std::uint32_t turn(std::int32_t place) const noexcept { return records_[place].turn; }
  route_plan const& plan(std::int32_t place) const noexcept { return records_[place].plan; }
  std::int32_t length(std::int32_t place) const noexcept { return records_[place].length; }
  std::int32_t first_page(std::int32_t place) const noexcept { return records_[place].first_page; }

  /// At a place where nobody is.
  template <class Storage>
  void note(std::int32_t place, Storage const& storage, sequence_id id,
            std::int32_t first_page) noexcept {
    auto& r = records_[place];
    r.plan = storage.plan(id);
    r.length = storage.length(id);
    r.first_page = first_page;
    r.used = true;
    r.approximate = storage.approximate(id);
    r.gapped = storage.next_position(id) != r.length;  // positions ascend
    std::memset(r.first_tokens, 0, sizeof(r.first_tokens));
    static_cast<void>(for_held(storage, id, [&](layer_id l, bool is_k, std::int32_t first) {
      r.first_tokens[l.index + (is_k ? 0 : r.plan.num_layers)] = first;
      return status{};
    }));
    auto const positions = storage.token_positions(id);
    if (r.gapped) std::memcpy(positions_of(place), positions.data(), positions.size_bytes());
    ++size_;
  }

  /// The sequence, for a storage. Points here.
  imported_sequence imported(std::int32_t place) const noexcept {
    auto const& r = records_[place];
    imported_sequence from;
    from.plan = r.plan;
    from.length = r.length;
    auto const* const positions = positions_.data() + std::int64_t{place} * max_tokens_;
    if (r.gapped) from.positions = {positions, static_cast<std::size_t>(r.length)};
    auto const count = 2 * static_cast<std::size_t>(r.plan.num_layers);
    from.first_tokens = std::span(r.first_tokens).first(count);
    from.approximate = r.approximate;
    return from;
  }

  void let_go(std::int32_t place) noexcept {
    records_[place].used = false;
    ++records_[place].turn;
    --size_;
  }

 private:
  struct record {
    route_plan plan = {};
    std::int32_t first_tokens[2 * max_layers] = {};  // [2, num_layers], of K and then of V
    std::int32_t length = 0;
    std::int32_t first_page = -1;
    bool used = false;
    bool approximate = false;
    bool gapped = false;  // its positions are kept; else they are 0, 1, ...
    std::uint32_t turn = 1;
  };

  std::int32_t* positions_of(std::int32_t place) noexcept {
    return positions_.data() + std::int64_t{place} * max_tokens_;
  }

  array<record> records_;          // [max_sequences]
  array<std::int32_t> positions_;  // [max_sequences, max_tokens]
  std::int32_t max_tokens_ = 0;
  std::int32_t size_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
