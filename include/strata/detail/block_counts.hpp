// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which blocks of a pool are free, and how many hold each of the others.
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Not thread-safe; nothing is allocated after `prepare`.
class block_counts {
 public:
  status prepare(std::int32_t num_blocks) noexcept {
    if (auto const s = free_.grow(num_blocks); !s.ok()) return s;
    if (auto const s = holders_.assign(num_blocks, 0); !s.ok()) return s;
    if (auto const s = kept_.assign(num_blocks, 0); !s.ok()) return s;
    num_free_ = num_blocks;
    for (std::int32_t i = 0; i < num_free_; ++i)
      free_[i] = num_free_ - 1 - i;  // block 0 goes first
    return {};
  }

  std::int32_t num_free() const noexcept { return num_free_; }
  /// Blocks that more than one holds.
  std::int32_t num_shared() const noexcept { return num_shared_; }
  /// How many hold a block; 0: it is free.
  std::int32_t holders(std::int32_t block) const noexcept { return holders_[block]; }

  /// An index holds it, too, and no longer.
  void keep(std::int32_t block) noexcept {
    hold(block);
    ++kept_[block];
  }
  void forget(std::int32_t block) noexcept {
    --kept_[block];
    let_go(block);
  }
  /// Whether none but indexes hold it.
  bool only_kept(std::int32_t block) const noexcept { return holders_[block] == kept_[block]; }

  /// A free block, for one holder. There must be one.
  std::int32_t take() noexcept {
    STRATA_ASSERT(num_free_ > 0);
    auto const block = free_[--num_free_];
    holders_[block] = 1;
    return block;
  }
  /// One more holds a block that somebody holds.
  void hold(std::int32_t block) noexcept {
    STRATA_ASSERT(holders_[block] > 0);
    num_shared_ += ++holders_[block] == 2;
  }
  /// One fewer does. Says whether it was the last: the block is the next to be taken. So blocks that
  /// are let go in the opposite order leave the free ones as they were.
  bool let_go(std::int32_t block) noexcept {
    STRATA_ASSERT(holders_[block] > 0);
    num_shared_ -= holders_[block] == 2;
    if (--holders_[block] > 0) return false;
    free_[num_free_++] = block;
    return true;
  }

 private:
  array<std::int32_t> free_;     // [num_blocks], the next one last
  array<std::int32_t> holders_;  // [num_blocks]
  array<std::int32_t> kept_;     // [num_blocks], of the holders those that are indexes
  std::int32_t num_free_ = 0;
  std::int32_t num_shared_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
