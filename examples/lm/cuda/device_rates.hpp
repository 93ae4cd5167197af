// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the current device can do at most, measured: what a bench holds its figures against. Read
// and multiply, and how much memory is free.
#pragma once

#include <cstdint>

namespace lm::cuda {

/// Bytes per second that a kernel reads from memory far larger than the device's caches.
double read_rate();
/// Multiply-adds per second, times two, of a large product of bf16 with sums in float.
double product_rate();
/// Bytes of the device that nobody has taken. Waits for the device, and has its pool give back what
/// was freed: else memory that went a moment ago counts as taken.
std::int64_t free_memory();

}  // namespace lm::cuda
