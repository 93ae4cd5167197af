// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a program owns of a device: memory, streams, events, graphs. Everything is released when its
// owner goes, in the order of the stream it belongs to; a stream outlives what was allocated on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <cuda_runtime_api.h>

#include <strata/cuda/memory.cuh>
#include <strata/status.hpp>

#include "cuda/launch.cuh"
#include "cuda/machine_failure.hpp"

namespace lm::cuda {
namespace detail {

/// A handle with one owner.
template <class Handle, class Release>
class owned {
 public:
  owned() = default;
  explicit owned(Handle handle) : handle_(handle) {}
  owned(owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  owned& operator=(owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~owned() {
    if (handle_ != nullptr) Release()(handle_);
  }

  Handle get() const noexcept { return handle_; }

 private:
  Handle handle_ = nullptr;
};

struct destroy_stream {
  void operator()(cudaStream_t s) const noexcept { static_cast<void>(cudaStreamDestroy(s)); }
};
struct destroy_event {
  void operator()(cudaEvent_t e) const noexcept { static_cast<void>(cudaEventDestroy(e)); }
};
struct destroy_graph {
  void operator()(cudaGraph_t g) const noexcept { static_cast<void>(cudaGraphDestroy(g)); }
};
struct destroy_executable {
  void operator()(cudaGraphExec_t g) const noexcept { static_cast<void>(cudaGraphExecDestroy(g)); }
};

template <class T>
std::int64_t bytes_of(std::int64_t count) {
  std::int64_t bytes = 0;
  if (count < 0 || __builtin_mul_overflow(count, static_cast<std::int64_t>(sizeof(T)), &bytes))
    throw std::bad_array_new_length();
  return bytes;
}

}  // namespace detail

/// Work in order, apart from the default stream's.
class device_stream {
 public:
  device_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    stream_ = detail::owned<cudaStream_t, detail::destroy_stream>(stream);
  }

  cudaStream_t get() const noexcept { return stream_.get(); }
  void wait() const { check(cudaStreamSynchronize(get()), "work on the device"); }

 private:
  detail::owned<cudaStream_t, detail::destroy_stream> stream_;
};

/// A point in the work of a stream, with its time.
class device_event {
 public:
  device_event() {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "an event");
    event_ = detail::owned<cudaEvent_t, detail::destroy_event>(event);
  }

  void record(cudaStream_t stream) { check(cudaEventRecord(event_.get(), stream), "an event"); }
  void wait() const { check(cudaEventSynchronize(event_.get()), "work on the device"); }
  /// Seconds from an earlier event to this one; both have been reached.
  double seconds_since(device_event const& earlier) const {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, earlier.event_.get(), event_.get()), "the time of an event");
    return static_cast<double>(ms) * 1e-3;
  }

 private:
  detail::owned<cudaEvent_t, detail::destroy_event> event_;
};

/// strata's memory, or throws what it says.
template <class Memory>
Memory taken(strata::result<Memory> made, char const* what) {
  if (made.ok()) return std::move(*made);
  auto const& s = made.state();
  bool const fits = s.code != strata::errc::out_of_memory;
  throw machine_failure(std::string("CUDA, ") + what + ": " + strata::describe(s).c_str(), s.value,
                        fits ? exit_code::failed : exit_code::does_not_fit);
}

/// Memory of a device, allocated and released in a stream's order. Not cleared.
template <class T>
class device_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  device_buffer() = default;
  device_buffer(device_stream const& stream, std::int64_t count) {
    if (auto const bytes = detail::bytes_of<T>(count); bytes > 0)
      memory_ = taken(strata::cuda::device_memory::make(stream.get(), bytes), "memory");
  }

  T* data() const noexcept { return reinterpret_cast<T*>(memory_.data()); }
  std::int64_t size() const noexcept {
    return static_cast<std::int64_t>(memory_.bytes().size() / sizeof(T));
  }

 private:
  strata::cuda::device_memory memory_;
};

/// Memory of the host that a device copies from and to while the host does something else.
template <class T>
class pinned_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  pinned_buffer() = default;
  explicit pinned_buffer(std::int64_t count) : size_(count) {
    if (auto const bytes = detail::bytes_of<T>(count); bytes > 0)
      memory_ = taken(strata::cuda::staging_memory::make(bytes), "pinned memory");
  }

  T* data() const noexcept { return reinterpret_cast<T*>(memory_.data()); }
  std::int64_t size() const noexcept { return size_; }
  std::span<T> values() const noexcept { return {data(), static_cast<std::size_t>(size_)}; }

 private:
  strata::cuda::staging_memory memory_;
  std::int64_t size_ = 0;
};

/// Enqueues copies and zeros. A copy from memory that is not pinned has left it on return.
template <class T>
void upload(cudaStream_t stream, std::span<T const> from, T* to) {
  check(cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream),
        "a copy to the device");
}
template <class T>
void download(cudaStream_t stream, T const* from, std::span<T> to) {
  check(cudaMemcpyAsync(to.data(), from, to.size_bytes(), cudaMemcpyDeviceToHost, stream),
        "a copy from the device");
}
template <class T>
void fill_zero(cudaStream_t stream, T* to, std::int64_t count) {
  auto const bytes = static_cast<std::size_t>(detail::bytes_of<T>(count));
  check(cudaMemsetAsync(to, 0, bytes, stream), "zeros");
}

/// Work that was recorded once and is enqueued as one: a decode step is some 500 launches, of which
/// each alone would cost the host as long as the device.
class device_graph {
 public:
  device_graph() = default;

  /// Records what body() enqueues on the stream; it allocates nothing and waits for nothing. What
  /// was recorded before is replaced, in place where only arguments changed.
  template <class Body>
  void record(device_stream const& stream, Body const& body) {
    check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "a recording");
    cudaGraph_t recorded = nullptr;
    try {
      body();
    } catch (...) {  // the stream must not go on recording
      static_cast<void>(cudaStreamEndCapture(stream.get(), &recorded));
      graph_owner const dropped(recorded);
      throw;
    }
    check(cudaStreamEndCapture(stream.get(), &recorded), "a recording");
    graph_owner const graph(recorded);
    if (updated(graph.get())) return;
    cudaGraphExec_t executable = nullptr;
    check(cudaGraphInstantiate(&executable, graph.get(), 0), "a graph");
    executable_ = executable_owner(executable);
  }

  bool recorded() const noexcept { return executable_.get() != nullptr; }
  void launch(cudaStream_t stream) const {
    check(cudaGraphLaunch(executable_.get(), stream), "a graph's launch");
  }

 private:
  using graph_owner = detail::owned<cudaGraph_t, detail::destroy_graph>;
  using executable_owner = detail::owned<cudaGraphExec_t, detail::destroy_executable>;

  bool updated(cudaGraph_t graph) {
    if (!recorded()) return false;
    cudaGraphExecUpdateResultInfo info = {};
    if (cudaGraphExecUpdate(executable_.get(), graph, &info) == cudaSuccess) return true;
    static_cast<void>(cudaGetLastError());  // another graph than before is no error
    return false;
  }

  executable_owner executable_;
};

}  // namespace lm::cuda
