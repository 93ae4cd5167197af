// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// operator new that counts; the aligned form, which allocates tensors, counts too.
#include "allocations.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::int64_t> allocation_count{0};

void* allocate(std::size_t size) noexcept {
  ++allocation_count;
  return std::malloc(size > 0 ? size : 1);
}
void* allocate(std::size_t size, std::align_val_t alignment) noexcept {
  ++allocation_count;
  auto const line = static_cast<std::size_t>(alignment);
  return std::aligned_alloc(line, (size + line - 1) / line * line);
}
void* or_throw(void* memory) { return memory == nullptr ? throw std::bad_alloc() : memory; }

}  // namespace

std::int64_t allocations() noexcept { return allocation_count.load(); }

// All forms: memory of one that was left as it is would meet a delete that is not its own.
void* operator new(std::size_t size) { return or_throw(allocate(size)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return or_throw(allocate(size, alignment));
}
void* operator new(std::size_t size, std::nothrow_t const&) noexcept { return allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  return allocate(size, alignment);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::nothrow_t const&) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t, std::nothrow_t const&) noexcept {
  std::free(memory);
}
