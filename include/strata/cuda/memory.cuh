// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Memory of a device, and memory of the host that copies start from. Taken once, when something is
// made; no call of the library takes any later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <cuda_runtime_api.h>

#include <strata/config.hpp>
#include <strata/cuda/detail/launch.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {
namespace detail {

/// What the runtime says of a call that takes memory. It keeps an error until somebody asks.
inline status as_memory_status(::cudaError_t error, std::int64_t bytes) noexcept {
  auto const s = as_status(error);
  if (error == ::cudaErrorMemoryAllocation) return {errc::out_of_memory, no_layer, bytes, 0};
  return s;
}

}  // namespace detail

/// Memory from the device's pool, in the order of a stream: it may be used by what that stream does
/// from then on, and goes back to the pool after what the stream was given before. 256-byte
/// aligned. The stream outlives it: it is what the memory goes back in the order of.
class device_memory {
 public:
  static result<device_memory> make(::cudaStream_t stream, std::int64_t bytes) noexcept {
    device_memory memory;
    void* data = nullptr;
    auto const got = ::cudaMallocAsync(&data, static_cast<std::size_t>(bytes), stream);
    if (auto const s = detail::as_memory_status(got, bytes); !s.ok()) return s;
    memory.data_ = static_cast<std::byte*>(data);
    memory.bytes_ = bytes;
    memory.stream_ = stream;
    return result<device_memory>(std::move(memory));
  }
  device_memory() noexcept = default;
  device_memory(device_memory&& other) noexcept { swap(other); }
  device_memory& operator=(device_memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~device_memory() {
    if (data_ != nullptr) (void)::cudaFreeAsync(data_, stream_);
  }

  std::byte* data() const noexcept { return data_; }
  std::span<std::byte> bytes() const noexcept { return {data_, static_cast<std::size_t>(bytes_)}; }

 private:
  void swap(device_memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(stream_, other.stream_);
  }

  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
  ::cudaStream_t stream_ = nullptr;
};

/// Page-locked memory that copies to the device start from, and an event that says when they have
/// read it.
class staging_memory {
 public:
  static result<staging_memory> make(std::int64_t bytes) noexcept {
    staging_memory memory;
    void* data = nullptr;
    auto const got = ::cudaMallocHost(&data, static_cast<std::size_t>(bytes));
    if (auto const s = detail::as_memory_status(got, bytes); !s.ok()) return s;
    memory.data_ = static_cast<std::byte*>(data);
    auto const made = ::cudaEventCreateWithFlags(&memory.read_, cudaEventDisableTiming);
    if (auto const s = detail::as_status(made); !s.ok()) return s;
    return result<staging_memory>(std::move(memory));
  }
  staging_memory() noexcept = default;
  staging_memory(staging_memory&& other) noexcept { swap(other); }
  staging_memory& operator=(staging_memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~staging_memory() {
    if (read_ != nullptr) (void)::cudaEventDestroy(read_);
    if (data_ != nullptr) (void)::cudaFreeHost(data_);
  }

  std::byte* data() const noexcept { return data_; }
  /// What `stream` was given so far reads this memory.
  status mark(::cudaStream_t stream) const noexcept {
    return detail::as_status(::cudaEventRecord(read_, stream));
  }
  /// Until what was marked last is done; at once where nothing was.
  status wait() const noexcept { return detail::as_status(::cudaEventSynchronize(read_)); }

 private:
  void swap(staging_memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(read_, other.read_);
  }

  std::byte* data_ = nullptr;
  ::cudaEvent_t read_ = nullptr;
};

}  // namespace cuda

STRATA_NAMESPACE_END
