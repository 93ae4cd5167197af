// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include <strata/config.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// An owned run of plain elements, aligned to a cache line. Unlike std::vector it reports a failed
/// allocation as a status, which noexcept calls need.
template <class T>
class array {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  array() noexcept = default;
  array(array&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  array& operator=(array&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~array() { ::operator delete(data_, alignment); }

  /// Room for at least `count` elements; keeps the first `size()` ones. Never shrinks.
  status grow(std::int64_t count) noexcept {
    if (count < 0) return {errc::size_overflow, no_layer, count, sizeof(T)};
    if (count <= size_) return {};
    auto const bytes = checked_multiply(count, sizeof(T));
    if (!bytes.ok()) return bytes.state();
    auto* const fresh =
        static_cast<T*>(::operator new(static_cast<std::size_t>(*bytes), alignment, std::nothrow));
    if (fresh == nullptr) return {errc::out_of_memory, no_layer, *bytes, 0};
    if (size_ > 0) std::memcpy(fresh, data_, static_cast<std::size_t>(size_) * sizeof(T));
    ::operator delete(data_, alignment);
    data_ = fresh;
    size_ = count;
    return {};
  }

  /// `grow`, and every element becomes `value`.
  status assign(std::int64_t count, T const& value) noexcept {
    if (auto const s = grow(count); !s.ok()) return s;
    for (std::int64_t i = 0; i < size_; ++i) data_[i] = value;
    return {};
  }

  /// `grow`, and the first `count` elements become `value`.
  status assign_first(std::int64_t count, T const& value) noexcept {
    if (auto const s = grow(count); !s.ok()) return s;
    for (std::int64_t i = 0; i < count; ++i) data_[i] = value;
    return {};
  }

  T* data() noexcept { return data_; }
  T const* data() const noexcept { return data_; }
  std::int64_t size() const noexcept { return size_; }
  T& operator[](std::int64_t i) noexcept { return data_[i]; }
  T const& operator[](std::int64_t i) const noexcept { return data_[i]; }
  std::span<T const> first(std::int64_t count) const noexcept {
    return {data_, static_cast<std::size_t>(count)};
  }

 private:
  static constexpr std::align_val_t alignment{64};

  T* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
