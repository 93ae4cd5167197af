// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The device systems that a property is checked on. A system has a policy, and arrays in memory
// that it reaches: upload makes one, get brings it back.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include <thrust/system/cpp/execution_policy.h>
#ifdef STRATA_TEST_OMP
#include <thrust/system/omp/execution_policy.h>
#endif
#ifdef STRATA_TEST_TBB
#include <thrust/system/tbb/execution_policy.h>
#endif

namespace bulk_test {

template <class T>
class host_array {
 public:
  explicit host_array(std::vector<T> values) : values_(std::move(values)) {}
  T* data() { return values_.data(); }
  T const* data() const { return values_.data(); }
  std::size_t size() const { return values_.size(); }
  std::vector<T> get() const { return values_; }

 private:
  std::vector<T> values_;
};

template <class Policy>
struct host_system {
  char const* name;
  Policy policy;

  template <class T>
  host_array<T> upload(std::vector<T> values) const {
    return host_array<T>(std::move(values));
  }
};

/// Calls body(system) for each system of the host.
template <class Body>
void for_each_host_system(Body const& body) {
  body(host_system<decltype(thrust::cpp::par)>{"CPP", thrust::cpp::par});
#ifdef STRATA_TEST_OMP
  body(host_system<decltype(thrust::omp::par)>{"OMP", thrust::omp::par});
#endif
#ifdef STRATA_TEST_TBB
  body(host_system<decltype(thrust::tbb::par)>{"TBB", thrust::tbb::par});
#endif
}

}  // namespace bulk_test
