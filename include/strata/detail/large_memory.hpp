// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include <strata/config.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Owned bytes, not written yet, that begin at a cache line. Large ones ask for huge pages on Linux,
/// which many systems give to those only who ask. From pages of 2 MiB a core of a Zen 4 reads 31
/// GB/s and two read 60, from pages of 4 KiB 21 and 36, since what the processor fetches ahead ends
/// with a page; decoding read 16384 tokens of bfloat16 at 29 GB/s for 21. What is touched then takes
/// memory in steps of 2 MiB; what is not takes none, as ever.
class large_memory {
 public:
  static constexpr std::int64_t huge_page = std::int64_t{2} << 20;
  /// Bytes from which on it matters: below, up to half of the last page would be wasted.
  static constexpr std::int64_t large = 2 * huge_page;

  large_memory() noexcept = default;
  large_memory(large_memory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  large_memory& operator=(large_memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~large_memory() { ::operator delete(data_, alignment(size_)); }

  /// Takes so many bytes instead of those that it has.
  status allocate(std::int64_t bytes) noexcept {
    if (bytes < 0) return {errc::size_overflow, no_layer, bytes, 1};
    auto const size = static_cast<std::size_t>(bytes);
    auto* const fresh = ::operator new(size, alignment(bytes), std::nothrow);
    if (fresh == nullptr) return {errc::out_of_memory, no_layer, bytes, 0};
    ::operator delete(data_, alignment(size_));
    data_ = static_cast<std::byte*>(fresh);
    size_ = bytes;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // Whole pages only. A kernel that has none says no, and all goes on with small ones.
    if (bytes >= large)
      static_cast<void>(
          ::madvise(data_, static_cast<std::size_t>(bytes / huge_page * huge_page), MADV_HUGEPAGE));
#endif
    return {};
  }

  std::byte* data() const noexcept { return data_; }
  std::int64_t size() const noexcept { return size_; }

 private:
  static constexpr std::align_val_t alignment(std::int64_t bytes) noexcept {
    return std::align_val_t{bytes < large ? std::size_t{64} : std::size_t{huge_page}};
  }

  std::byte* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
