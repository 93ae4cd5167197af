// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What measuring on a device takes: memory, captured graphs, and events between their launches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include <cuda_runtime.h>

#include <strata/status.hpp>

namespace bench {

inline void require(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}
inline void require(strata::status const& s) {
  if (s.ok()) return;
  std::fprintf(stderr, "%s\n", strata::describe(s).c_str());
  if (s.code == strata::errc::device_failure)
    std::fprintf(stderr, "%s\n", cudaGetErrorString(static_cast<cudaError_t>(s.value)));
  std::exit(1);
}

/// What the device has free. Some is left for what the driver takes meanwhile.
inline std::int64_t free_memory() {
  std::size_t free = 0, total = 0;
  require(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(free) - (std::int64_t{1} << 30);
}

/// Plain memory of the device.
template <class T>
class device_array {
 public:
  device_array() = default;
  explicit device_array(std::int64_t count) : count_(count) {
    if (count > 0) require(cudaMalloc(&data_, static_cast<std::size_t>(count) * sizeof(T)));
  }
  explicit device_array(std::vector<T> const& values)
      : device_array(static_cast<std::int64_t>(values.size())) {
    if (count_ > 0)
      require(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  device_array(device_array&& other) noexcept { *this = std::move(other); }
  device_array& operator=(device_array&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~device_array() { (void)cudaFree(data_); }

  T* data() const { return data_; }
  std::int64_t size() const { return count_; }
  std::vector<T> to_host() const {
    std::vector<T> values(static_cast<std::size_t>(count_));
    require(cudaMemcpy(values.data(), data_, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::int64_t count_ = 0;
};

/// Work of a stream, to be launched as one.
class captured_graph {
 public:
  template <class Enqueue>
  captured_graph(cudaStream_t stream, Enqueue&& enqueue) : stream_(stream) {
    require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue();
    require(cudaStreamEndCapture(stream, &graph_));
    require(cudaGraphInstantiate(&launchable_, graph_, 0));
  }
  captured_graph(captured_graph const&) = delete;
  captured_graph& operator=(captured_graph const&) = delete;
  ~captured_graph() {
    (void)cudaGraphExecDestroy(launchable_);
    (void)cudaGraphDestroy(graph_);
  }

  void launch() const { require(cudaGraphLaunch(launchable_, stream_)); }
  std::int64_t nodes() const {
    std::size_t count = 0;
    require(cudaGraphGetNodes(graph_, nullptr, &count));
    return static_cast<std::int64_t>(count);
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t launchable_ = nullptr;
};

/// Seconds of each of `count` runs of what `start` gives a stream. All are given at once, behind
/// one that is not counted, so that between events the device never waits for the host.
template <class Start>
std::vector<double> seconds_of(cudaStream_t stream, std::int64_t count, Start&& start) {
  std::vector<cudaEvent_t> events(static_cast<std::size_t>(count) + 1);
  for (auto& event : events) require(cudaEventCreate(&event));
  start();
  require(cudaEventRecord(events[0], stream));
  for (std::size_t i = 1; i < events.size(); ++i) {
    start();
    require(cudaEventRecord(events[i], stream));
  }
  require(cudaEventSynchronize(events.back()));
  std::vector<double> seconds;
  for (std::size_t i = 1; i < events.size(); ++i) {
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, events[i - 1], events[i]));
    seconds.push_back(milliseconds * 1e-3);
  }
  for (auto const event : events) require(cudaEventDestroy(event));
  return seconds;
}

template <class Start>
double best_seconds(cudaStream_t stream, Start&& start) {
  auto const seconds = seconds_of(stream, 5, start);
  return *std::min_element(seconds.begin(), seconds.end());
}

/// Pairs of bfloat16 in [-1, 1): as good as bytes, and as factors. (A template, as all kernels of
/// headers here: nvcc knows no inline ones.)
template <class Word>
__global__ void fill_random(Word* words, std::int64_t count, std::uint32_t seed) {
  auto const step = std::int64_t{gridDim.x} * blockDim.x;
  for (auto i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    auto x = static_cast<std::uint64_t>(i) + (std::uint64_t{seed} << 32) + 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    auto const high = [](std::uint32_t bits) {
      return __float_as_uint(static_cast<float>(bits) * 0x1p-31f - 1.0f) >> 16;
    };
    words[i] =
        high(static_cast<std::uint32_t>(x >> 32)) << 16 | high(static_cast<std::uint32_t>(x));
  }
}

/// Random memory.
inline device_array<uint4> random_memory(std::int64_t bytes, std::uint32_t seed) {
  device_array<uint4> memory(bytes / 16);
  fill_random<<<4096, 256>>>(reinterpret_cast<std::uint32_t*>(memory.data()), bytes / 16 * 4, seed);
  require(cudaGetLastError());
  require(cudaDeviceSynchronize());
  return memory;
}

}  // namespace bench
