// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Takes numbers and bytes from the front of bytes that came from outside; beyond their end there
/// are zeros, and `ok` is false from then on.
class byte_reader {
 public:
  explicit byte_reader(std::span<std::byte const> bytes) noexcept : rest_(bytes) {}

  bool ok() const noexcept { return ok_; }
  std::span<std::byte const> rest() const noexcept { return rest_; }

  std::span<std::byte const> bytes(std::uint64_t count) noexcept {
    ok_ = ok_ && count <= rest_.size();
    if (!ok_) return {};
    auto const taken = rest_.first(static_cast<std::size_t>(count));
    rest_ = rest_.subspan(static_cast<std::size_t>(count));
    return taken;
  }
  template <class T>
  T number() noexcept {
    static_assert(std::is_arithmetic_v<T>);
    T value = 0;
    auto const taken = bytes(sizeof(T));
    if (ok_) std::memcpy(&value, taken.data(), sizeof(T));
    return value;
  }

 private:
  std::span<std::byte const> rest_;
  bool ok_ = true;
};

}  // namespace detail

STRATA_NAMESPACE_END
