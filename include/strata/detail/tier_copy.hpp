// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// K and V of a sequence, from the blocks of a storage to pages of a tier and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/cache/codec.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/snapshot_writer.hpp>
#include <strata/detail/tier_pages.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>
#include <strata/tensor.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Calls body(layer, is_k, first token that is there) for the tensors that a sequence stores, until
/// it refuses.
template <class Storage, class Body>
status for_held(Storage const& storage, sequence_id id, Body const& body) noexcept {
  auto const& plan = storage.plan(id);
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
    for (auto const is_k : both_sides) {
      if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
      auto const first = storage.first_token(id, l, is_k ? tensor::k : tensor::v);
      if (auto const s = body(l, is_k, first); !s.ok()) return s;
    }
  return {};
}

/// Bytes of K and V of all tokens that a sequence holds.
template <class Storage>
result<std::int64_t> held_bytes(Storage const& storage, sequence_id id) noexcept {
  std::int64_t bytes = 0;  // they are in memory: their sum is no overflow
  auto const counted =
      for_held(storage, id, [&](layer_id l, bool is_k, std::int32_t first) -> status {
        auto const of_tensor = tensor_bytes(storage, l, is_k, storage.length(id) - first);
        if (of_tensor.ok()) bytes += *of_tensor;
        return of_tensor.state();
      });
  if (!counted.ok()) return counted;
  return bytes;
}

/// Copies, those that go on where the one before ended as one. Blocks that a prompt took lie one
/// behind the other, and so do pages that were not used yet: megabytes, and one call of a device's
/// runtime instead of thousands.
template <class Copier>
class joined_copies {
 public:
  explicit joined_copies(Copier& copier) noexcept : copier_(copier) {}

  status add(std::byte* to, std::byte const* from, std::size_t bytes) noexcept {
    if (bytes_ > 0 && to == to_ + bytes_ && from == from_ + bytes_) {
      bytes_ += bytes;
      return {};
    }
    auto const done = finish();
    to_ = to;
    from_ = from;
    bytes_ = bytes;
    return done;
  }
  status finish() noexcept {
    auto const bytes = bytes_;
    bytes_ = 0;
    return bytes > 0 ? copier_.copy(to_, from_, bytes) : status{};
  }

 private:
  Copier& copier_;
  std::byte* to_ = nullptr;
  std::byte const* from_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Copies in the order of the tensors: layer by layer, K before V, rows before scales.
template <class Copier>
class tier_copy {
 public:
  /// `walk`: at the beginning of the sequence's pages.
  tier_copy(Copier& copier, page_walk walk) noexcept : copier_(copier), walk_(walk) {}

  template <class Storage>
  status out(Storage const& storage, sequence_id id) noexcept {
    return for_held(storage, id, [&](layer_id l, bool is_k, std::int32_t first) {
      return both<Storage>(is_k, [&](tensor which, bool once) {
        bool kept = false;
        return pieces(
            [&](auto const& body) {
              return storage.for_bytes(id, l, which, first, storage.length(id), [&](auto bytes) {
                if (!once || !kept) body(bytes);
                kept = true;
              });
            },
            [](auto& copies, auto page, auto block) {
              return copies.add(page.data(), block.data(), page.size());
            });
      });
    });
  }

  template <class Storage>
  status in(Storage& storage, sequence_id id) noexcept {
    return for_held(storage, id, [&](layer_id l, bool is_k, std::int32_t first) {
      return both<Storage>(is_k, [&](tensor which, bool once) {
        auto const start = walk_;
        return pieces(
            [&](auto const& body) {
              return storage.import_bytes(id, l, which, first, storage.length(id), [&](auto bytes) {
                if (once) walk_ = start;
                body(bytes);
              });
            },
            [](auto& copies, auto page, auto block) {
              return copies.add(block.data(), page.data(), page.size());
            });
      });
    });
  }

 private:
  /// Calls move(which, once) for rows, and for scales: those of a head-scaled codec are the same in
  /// all blocks, and here once.
  template <class Storage, class Move>
  static status both(bool is_k, Move const& move) noexcept {
    if (auto const s = move(is_k ? tensor::k : tensor::v, false); !s.ok()) return s;
    bool const once = is_k ? head_scaled_codec<typename Storage::k_codec>
                           : head_scaled_codec<typename Storage::v_codec>;
    return move(is_k ? tensor::k_scales : tensor::v_scales, once);
  }

  /// each(body): calls body for the pieces of a tensor in the storage. add(copies, page, block):
  /// pieces of one size, the one here and the one there.
  template <class Each, class Add>
  status pieces(Each const& each, Add const& add) noexcept {
    joined_copies<Copier> copies(copier_);  // of one tensor: never from one allocation to the next
    status outcome;
    auto const s = each([&](auto bytes) {
      if (!outcome.ok()) return;
      outcome = walk_.next(bytes.size(), [&](std::span<std::byte> page, std::size_t before) {
        return add(copies, page, bytes.subspan(before, page.size()));
      });
    });
    if (!s.ok()) return s;
    return outcome.ok() ? copies.finish() : outcome;
  }

  Copier& copier_;
  page_walk walk_;
};

}  // namespace detail

STRATA_NAMESPACE_END
