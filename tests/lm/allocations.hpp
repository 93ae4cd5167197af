// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

/// How often this program has called operator new.
std::int64_t allocations() noexcept;
