// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "cuda/device_rates.hpp"

#include <algorithm>

#include <cuda_runtime_api.h>

#include "cuda/cuda_machine.cuh"

namespace lm::cuda {
namespace {

/// The shortest of a few runs of body(), in seconds; the first one is not counted.
template <class Body>
double shortest_seconds(cuda_machine& m, Body const& body) {
  constexpr int runs = 6;
  device_event begin, end;
  double shortest = 0;
  for (int i = 0; i < runs; ++i) {
    begin.record(m.stream().get());
    body();
    end.record(m.stream().get());
    end.wait();
    auto const seconds = end.seconds_since(begin);
    if (i == 1 || (i > 1 && seconds < shortest)) shortest = seconds;
  }
  return shortest;
}

}  // namespace

double read_rate() {
  cuda_machine m;
  constexpr std::int64_t most = std::int64_t{2} << 30;  // the largest cache is 126 MiB
  auto const bytes =
      std::min(most, free_memory() / 2) / read_memory::block_bytes * read_memory::block_bytes;
  auto const memory = m.allocate<strata::cuda::detail::chunk>(bytes / 16);
  auto const sums = m.allocate<std::uint32_t>(bytes / read_memory::block_bytes);
  m.fill_zero(memory.data(), memory.size());
  read_memory const body{memory.data(), sums.data(), bytes};
  return static_cast<double>(bytes) / shortest_seconds(m, [&] { m.launch(body); });
}

double product_rate() {
  cuda_machine m;
  constexpr std::int64_t n = 8192;
  auto const a = m.allocate<bfloat16>(n * n), b = m.allocate<bfloat16>(n * n),
             c = m.allocate<bfloat16>(n * n);
  m.launch(fill_noise{a.data(), n * n, 1});  // zeros would be multiplied faster
  m.launch(fill_noise{b.data(), n * n, 2});
  auto const seconds =
      shortest_seconds(m, [&] { m.linear<bfloat16>(a.data(), b.data(), c.data(), n, n, n); });
  return 2. * n * n * n / seconds;
}

std::int64_t free_memory() {
  // What was freed in a stream's order stays with the pool, which keeps it until all is done and
  // it is told to give back what it does not need.
  check(cudaDeviceSynchronize(), "work on the device");
  int device = 0;
  check(cudaGetDevice(&device), "a device");
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetMemPool(&pool, device), "its pool of memory");
  check(cudaMemPoolTrimTo(pool, 0), "its pool of memory");
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "its memory");
  return static_cast<std::int64_t>(free);
}

}  // namespace lm::cuda
