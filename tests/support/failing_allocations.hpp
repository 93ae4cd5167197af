// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

namespace support {

/// The aligned allocation so many from now on fails, once: that of arrays and of caches. -1: none.
void fail_allocation(std::int64_t number) noexcept;
/// Aligned allocations so far.
std::int64_t aligned_allocations() noexcept;

}  // namespace support
