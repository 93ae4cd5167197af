// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The checks of tests/bulk on a device, in a stream of its own. Compiled everywhere, run where
// there is a device; 77 says that there is none.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <thrust/system/cuda/execution_policy.h>

#include "bulk/row_checks.hpp"
#include "bulk/table_checks.hpp"
#include "bulk/token_checks.hpp"

namespace {

void* allocate_bytes(std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) throw std::bad_alloc{};
  return memory;
}

/// An array of the device. Copies wait for it.
template <class T>
class device_array {
 public:
  explicit device_array(std::vector<T> const& values)
      : data_(static_cast<T*>(allocate_bytes((values.size() + 1) * sizeof(T)))),
        size_(values.size()) {
    cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
    cudaDeviceSynchronize();  // a copy of pageable memory may return early
  }
  device_array(device_array const&) = delete;
  device_array& operator=(device_array const&) = delete;
  ~device_array() { cudaFree(data_); }

  T* data() { return data_; }
  T const* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::vector<T> get() const {
    std::vector<T> values(size_);
    cudaDeviceSynchronize();
    cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost);
    return values;
  }

 private:
  T* data_;
  std::size_t size_;
};

template <class Policy>
struct cuda_system {
  Policy policy;

  template <class T>
  device_array<T> upload(std::vector<T> const& values) const {
    return device_array<T>(values);
  }
};
template <class Policy>
cuda_system(Policy) -> cuda_system<Policy>;

/// Memory for temporaries, counted.
struct counting_allocator {
  using value_type = char;
  int* count;

  char* allocate(std::size_t bytes) {
    ++*count;
    return static_cast<char*>(allocate_bytes(bytes));
  }
  void deallocate(char* at, std::size_t) { cudaFree(at); }
};

int failures = 0;

void expect(std::string const& difference, char const* what, std::uint64_t seed) {
  if (difference.empty()) return;
  ++failures;
  std::printf("%s, seed %d: %s\n", what, static_cast<int>(seed), difference.c_str());
}

template <class System>
void run_checks(System const& system) {
  using namespace bulk_test;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    expect(check_gather<std::int32_t>(system, seed), "gather", seed);
    expect(check_scatter<std::int32_t>(system, seed), "scatter", seed);
    expect(check_compact(system, seed), "compact", seed);
    expect(check_select<std::int32_t>(system, seed), "select", seed);
    expect(check_compact_tokens(system, true, seed), "compact_tokens in place", seed);
    expect(check_compact_tokens(system, false, seed), "compact_tokens", seed);
    expect(check_top_k(system, seed), "top_k", seed);
    expect(check_row_tables(system, seed), "fill_row_tables", seed);
    expect(check_order(system, seed), "order_by_depth", seed);
  }
  expect(check_compact_of_much(system), "compact of much", 3);
  expect(check_top_k(system, {nullptr, 3, 70'001, nullptr, 70'001}, 20'000, false, 1),
         "top_k of many", 1);
  expect(check_positions(system), "positions", 0);
}

/// On a device a list is not looked at: what it names that is not there is left out.
template <class System>
void run_hostile(System const& system) {
  auto from = system.upload(std::vector<std::int32_t>{1, 2, 3});
  auto to = system.upload(std::vector<std::int32_t>{7, 8, 9});
  auto const list = system.upload(std::vector<std::int32_t>{2, 3, INT32_MIN});
  auto const rows = strata::bulk::rows_of(from.data(), 3),
             other = strata::bulk::rows_of(to.data(), 3);
  bool const gathered = strata::bulk::gather(system.policy, rows, list, other).ok();
  if (!gathered || to.get() != std::vector<std::int32_t>{3, 8, 9})
    expect("rows that are not there", "gather", 0);
  if (strata::bulk::check_list(system.policy, list, 3).value != 3)
    expect("another answer", "check_list", 0);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  cudaStream_t stream = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 1;
  cuda_system const system{thrust::cuda::par_nosync.on(stream)};
  run_checks(system);
  run_hostile(system);

  int allocations = 0;
  counting_allocator allocator{&allocations};
  cuda_system const counted{thrust::cuda::par_nosync(allocator).on(stream)};
  expect(bulk_test::check_compact_tokens(counted, true, 1), "allocator", 1);
  if (allocations == 0) expect("was not asked", "allocator", 1);

  cudaStreamDestroy(stream);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
