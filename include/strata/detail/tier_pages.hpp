// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Pages of a tier: memory without holes, which lists of any length are made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/math.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Which pages follow each other, in the lists that were taken and in that of the free ones.
class page_lists {
 public:
  status prepare(std::int32_t num_pages, std::int64_t page_bytes) noexcept {
    if (auto const s = next_.grow(num_pages); !s.ok()) return s;
    for (std::int32_t p = 0; p < num_pages; ++p) next_[p] = p + 1 < num_pages ? p + 1 : -1;
    page_bytes_ = page_bytes;
    free_ = num_pages > 0 ? 0 : -1;
    num_free_ = num_pages;
    return {};
  }

  std::int32_t num_free() const noexcept { return num_free_; }
  std::int64_t page_bytes() const noexcept { return page_bytes_; }
  std::int32_t next(std::int32_t page) const noexcept { return next_[page]; }

  /// The first page of a list of so many, of which there must be enough; -1: of none.
  std::int32_t take(std::int32_t count) noexcept {
    if (count == 0) return -1;
    auto const first = free_;
    auto last = first;
    for (std::int32_t i = 1; i < count; ++i) last = next_[last];
    free_ = next_[last];
    next_[last] = -1;
    num_free_ -= count;
    return first;
  }
  void give_back(std::int32_t first) noexcept {
    if (first < 0) return;
    auto last = first;
    for (++num_free_; next_[last] >= 0; ++num_free_) last = next_[last];
    next_[last] = free_;
    free_ = first;
  }

 private:
  array<std::int32_t> next_;  // [pages], -1: the last one
  std::int64_t page_bytes_ = 0;
  std::int32_t free_ = -1;
  std::int32_t num_free_ = 0;
};

/// Goes through the bytes of a list, from the first on. A copy goes on from where it was made.
class page_walk {
 public:
  page_walk(page_lists const& lists, std::byte* memory, std::int32_t first) noexcept
      : lists_(&lists), memory_(memory), page_(first) {}

  /// Calls body(bytes, how many came before) for the next `size` bytes, page by page, until it
  /// refuses.
  template <class Body>
  status next(std::size_t size, Body const& body) noexcept {
    for (std::size_t done = 0; done < size;) {
      if (used_ == lists_->page_bytes()) {
        page_ = lists_->next(page_);
        used_ = 0;
      }
      auto const rest = static_cast<std::size_t>(lists_->page_bytes() - used_);
      auto const count = smaller(rest, size - done);
      auto const piece = std::span(memory_ + page_ * lists_->page_bytes() + used_, count);
      if (auto const s = body(piece, done); !s.ok()) return s;
      used_ += static_cast<std::int64_t>(count);
      done += count;
    }
    return {};
  }

 private:
  page_lists const* lists_;
  std::byte* memory_;
  std::int32_t page_;
  std::int64_t used_ = 0;  // bytes of the page
};

}  // namespace detail

STRATA_NAMESPACE_END
