// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a device can do at best, measured: the roofs under which the benchmarks' figures stand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "device.cuh"
#include "gemm_rate.hpp"

namespace bench {

__device__ inline void fold(uint4& into, uint4 const& from) {
  into.x ^= from.x, into.y ^= from.y, into.z ^= from.z, into.w ^= from.w;
}

/// What was read is kept, so that it is read.
__device__ inline void keep(uint4 const& folded, std::uint32_t* sink) {
  if ((folded.x & folded.y & folded.z & folded.w) == 0xFFFFFFFF) *sink = 1;
}

/// Reads `steps` times Unroll pieces of 16 bytes with every thread: as many loads are on their way.
template <int Unroll>
__global__ void read_once(uint4 const* from, std::int64_t steps, std::uint32_t* sink) {
  auto const threads = std::int64_t{gridDim.x} * blockDim.x;
  auto const* at = from + std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint4 folded = {};
  for (std::int64_t i = 0; i < steps; ++i, at += Unroll * threads) {
    uint4 pieces[Unroll];
#pragma unroll
    for (int j = 0; j < Unroll; ++j) pieces[j] = __ldcs(at + j * threads);
#pragma unroll
    for (int j = 0; j < Unroll; ++j) fold(folded, pieces[j]);
  }
  keep(folded, sink);
}

/// Reads a set of `steps` pieces per thread again and again, past the first-level caches, which
/// together hold as much; in every round a thread has another's place.
template <int Unroll>
__global__ void read_again(uint4 const* from, int steps, int rounds, std::uint32_t* sink) {
  auto const threads = gridDim.x * blockDim.x;
  uint4 folded = {};
  for (int round = 0; round < rounds; ++round) {
    auto const block = (blockIdx.x + 7u * static_cast<unsigned>(round)) % gridDim.x;
    auto const* at = from + block * blockDim.x + threadIdx.x;
#pragma unroll Unroll
    for (int i = 0; i < steps; ++i) fold(folded, __ldcg(at + std::int64_t{i} * threads));
  }
  keep(folded, sink);
}

template <int>
__global__ void do_nothing() {}

/// Best of several widths: bytes per second of reading random memory, once, at least 2 GB.
class read_probe {
 public:
  explicit read_probe(cudaStream_t stream, int multiprocessors)
      : stream_(stream), multiprocessors_(multiprocessors), memory_(random_memory(bytes, 3)) {}

  double rate() const {
    double best = 0;
    for (int const blocks : {2, 4, 8})
      best = std::max({best, width<4>(blocks), width<8>(blocks), width<16>(blocks)});
    return best;
  }
  /// Of a set that the second-level cache may hold.
  double again(std::int64_t set_bytes) const {
    constexpr int threads = 512, rounds = 64;
    int const blocks = 4 * multiprocessors_;
    auto const piece = std::int64_t{blocks} * threads * 16;
    auto const steps = static_cast<int>(std::max<std::int64_t>(1, (set_bytes + piece / 2) / piece));
    auto const seconds = best_seconds(stream_, [&] {
      read_again<4><<<blocks, threads, 0, stream_>>>(memory_.data(), steps, rounds, sink_.data());
    });
    return static_cast<double>(piece) * steps * rounds / seconds;
  }
  /// Bytes read and bytes written of a copy within the device.
  double copy() const {
    auto* const middle = memory_.data() + memory_.size() / 2;
    return bytes / best_seconds(stream_, [&] {
             require(cudaMemcpyAsync(middle, memory_.data(), bytes / 2, cudaMemcpyDeviceToDevice,
                                     stream_));
           });
  }

 private:
  static constexpr std::int64_t bytes = std::int64_t{4} << 30;

  template <int Unroll>
  double width(int blocks_per_multiprocessor) const {
    constexpr int threads = 256;
    int const blocks = blocks_per_multiprocessor * multiprocessors_;
    auto const step = std::int64_t{blocks} * threads * Unroll;
    auto const steps = memory_.size() / step;
    auto const seconds = best_seconds(stream_, [&] {
      read_once<Unroll><<<blocks, threads, 0, stream_>>>(memory_.data(), steps, sink_.data());
    });
    return static_cast<double>(steps * step * 16) / seconds;
  }

  cudaStream_t stream_;
  int multiprocessors_;
  device_array<uint4> memory_;
  device_array<std::uint32_t> sink_{1};
};

/// Seconds from one kernel of a captured graph to the next.
inline double launch_seconds(cudaStream_t stream) {
  constexpr int launches = 512;
  captured_graph const graph(stream, [&] {
    for (int i = 0; i < launches; ++i) do_nothing<0><<<1, 32, 0, stream>>>();
  });
  return best_seconds(stream, [&] { graph.launch(); }) / launches;
}

/// What takes longest of an iteration, at the very least.
struct device_work {
  double bytes = 0;  ///< of device memory, read
  double flops = 0;  ///< of matrix products of 16-bit factors
};

struct device_limits {
  double read_bytes = 0;  ///< per second, as all of these
  double copy_bytes = 0;  ///< read and written
  double l2_16mb = 0, l2_32mb = 0, l2_45mb = 0;
  double gemm_flops = 0;  ///< 0: not measured
  double launch = 0;      ///< seconds

  device_limits(cudaStream_t stream, int multiprocessors) {
    {
      read_probe const probe(stream, multiprocessors);
      read_bytes = probe.rate();
      l2_16mb = probe.again(16'000'000);
      l2_32mb = probe.again(32'000'000);
      l2_45mb = probe.again(45'000'000);
      copy_bytes = probe.copy();
    }
    gemm_flops = gemm_rate(stream);
    launch = launch_seconds(stream);
    require(cudaGetLastError());
  }

  /// The seconds below which the work cannot be done, as if loads and products ran side by side.
  double seconds(device_work const& work) const {
    auto const reads = work.bytes / read_bytes;
    return gemm_flops > 0 ? std::max(reads, work.flops / gemm_flops) : reads;
  }
};

}  // namespace bench
