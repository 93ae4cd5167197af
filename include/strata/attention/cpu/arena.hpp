// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The workspace of a share, taken apart.
#pragma once

#include <cstdint>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Hands out one piece after the other.
template <class T>
class arena {
 public:
  explicit arena(T* data) noexcept : at_(data) {}
  T* take(std::int64_t count) noexcept {
    T* const taken = at_;
    at_ += count;
    return taken;
  }
  /// Zeros, so that what lies between and behind rows can be read.
  T* zeros(std::int64_t count) noexcept {
    T* const taken = take(count);
    for (std::int64_t i = 0; i < count; ++i) taken[i] = 0;
    return taken;
  }

 private:
  T* at_;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
