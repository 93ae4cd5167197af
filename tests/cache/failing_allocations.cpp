// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Aligned forms of operator new that count, and fail where a test says so.
#include "support/failing_allocations.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::int64_t> aligned_count{0}, failing{-1};

void* allocate(std::size_t size, std::align_val_t alignment) noexcept {
  if (aligned_count++ == failing) return nullptr;
  auto const line = static_cast<std::size_t>(alignment);
  if (size > (std::size_t{1} << 62)) return nullptr;
  return std::aligned_alloc(line, (size + line - 1) / line * line);
}

}  // namespace

namespace support {

void fail_allocation(std::int64_t number) noexcept {
  failing = number < 0 ? -1 : aligned_count.load() + number;
}
std::int64_t aligned_allocations() noexcept { return aligned_count.load(); }

}  // namespace support

void* operator new(std::size_t size, std::align_val_t alignment) {
  auto* const memory = allocate(size, alignment);
  return memory == nullptr ? throw std::bad_alloc() : memory;
}
void* operator new(std::size_t size, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  return allocate(size, alignment);
}
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t, std::nothrow_t const&) noexcept {
  std::free(memory);
}
