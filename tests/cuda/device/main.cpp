// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Runs what is compiled for a device, where there is one. All memory of this program comes from one
// managed piece, which host and device both see.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory_resource>
#include <new>

#include <cuda_runtime_api.h>

namespace {

constexpr std::size_t managed_bytes = std::size_t{4} << 30;

/// The pool, or null as long as, and where, there is no device.
std::pmr::memory_resource* pool = nullptr;

/// Before what is given out, which begins `alignment` bytes after what was taken.
struct header {
  std::pmr::memory_resource* from;
  std::size_t bytes, alignment;
};

void* allocate(std::size_t bytes, std::size_t alignment = 32) {
  alignment = std::max(alignment, sizeof(header));
  bytes = (bytes + 2 * alignment - 1) / alignment * alignment;
  auto* const from = pool;
  void* const memory =
      from != nullptr ? from->allocate(bytes, alignment) : std::aligned_alloc(alignment, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  auto* const given = static_cast<std::byte*>(memory) + alignment;
  *(reinterpret_cast<header*>(given) - 1) = {from, bytes, alignment};
  return given;
}

void* allocate(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}

void release(void* memory) {
  if (memory == nullptr) return;
  auto const own = *(static_cast<header*>(memory) - 1);
  void* const taken = static_cast<std::byte*>(memory) - own.alignment;
  if (own.from != nullptr)
    own.from->deallocate(taken, own.bytes, own.alignment);
  else
    std::free(taken);
}

}  // namespace

// All that the standard library's own other forms do not end in: nothrow ones do.
void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, alignment);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, alignment);
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }

int main(int argc, char** argv) {
  int count = 0;
  auto const found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess || count == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(found));
    return 77;
  }
  void* memory = nullptr;
  if (auto const got = cudaMallocManaged(&memory, managed_bytes); got != cudaSuccess) {
    std::printf("failed: no managed memory (%s)\n", cudaGetErrorString(got));
    return 1;
  }
  static std::pmr::monotonic_buffer_resource arena(memory, managed_bytes,
                                                   std::pmr::null_memory_resource());
  static std::pmr::unsynchronized_pool_resource shared(&arena);
  pool = &shared;
  auto const result = doctest::Context(argc, argv).run();
  pool = nullptr;
  std::fflush(stdout);
  std::_Exit(result);  // what others destroy at exit may lie in the pool
}
