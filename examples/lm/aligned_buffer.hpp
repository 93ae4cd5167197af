// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace lm {
namespace detail {

/// Bytes whose memory begins at a huge page and asks for them: decoding reads weights from end to
/// end, and from small pages a Zen 4 reads a quarter slower.
inline constexpr std::size_t huge_page = std::size_t{2} << 20;
inline constexpr std::size_t large = 2 * huge_page;

inline std::align_val_t alignment_of(std::size_t bytes) noexcept {
  return std::align_val_t{bytes < large ? 64 : huge_page};
}

/// Throws std::bad_alloc.
inline void* allocate_large(std::size_t bytes) {
  auto* const memory = ::operator new[](bytes, alignment_of(bytes));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Refused where there are none: then the pages are small.
  if (bytes >= large)
    static_cast<void>(::madvise(memory, bytes / huge_page * huge_page, MADV_HUGEPAGE));
#endif
  return memory;
}

}  // namespace detail

/// Zeroed memory on a cache line boundary. Throws std::bad_alloc.
template <class T>
class aligned_buffer {
 public:
  aligned_buffer() = default;
  explicit aligned_buffer(std::int64_t count)
      : data_(static_cast<T*>(detail::allocate_large(bytes_of(count))), {bytes_of(count)}),
        size_(count) {
    std::uninitialized_value_construct_n(data(), count);
  }

  T* data() noexcept { return data_.get(); }
  T const* data() const noexcept { return data_.get(); }
  std::int64_t size() const noexcept { return size_; }
  std::span<T> values() noexcept { return {data(), static_cast<std::size_t>(size_)}; }
  std::span<T const> values() const noexcept { return {data(), static_cast<std::size_t>(size_)}; }

 private:
  struct release {
    std::size_t bytes = 0;
    void operator()(T* data) const noexcept {
      ::operator delete[](data, detail::alignment_of(bytes));
    }
  };
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
  static std::size_t bytes_of(std::int64_t count) {
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(count, sizeof(T), &bytes)) throw std::bad_array_new_length();
    return bytes;
  }

  std::unique_ptr<T[], release> data_;
  std::int64_t size_ = 0;
};

}  // namespace lm
