// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

namespace lm::cuda {

/// Puts tensors into one allocation of a device, one after the other; without memory it counts the
/// bytes that they take.
class arena {
 public:
  arena() = default;
  /// The caller's.
  explicit arena(std::byte* memory) : memory_(memory) {}

  bool counts() const noexcept { return memory_ == nullptr; }
  std::int64_t taken() const noexcept { return taken_; }

  /// tensor: [count]; left alone while it counts.
  template <class T>
  void take(T*& tensor, std::int64_t count) {
    constexpr std::int64_t line = 256;  // bytes
    if (!counts()) tensor = reinterpret_cast<T*>(memory_ + taken_);
    taken_ += (count * static_cast<std::int64_t>(sizeof(T)) + line - 1) / line * line;
  }

 private:
  std::byte* memory_ = nullptr;
  std::int64_t taken_ = 0;
};

}  // namespace lm::cuda
