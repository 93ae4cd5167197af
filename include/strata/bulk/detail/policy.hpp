// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What is asked of an execution policy: whose memory it works on, temporary memory, and that what
// Thrust throws becomes a status. Thrust does not compile without exceptions.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/memory.h>
#include <thrust/system/detail/sequential/execution_policy.h>
#include <thrust/system_error.h>

#include <strata/config.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk::detail {

/// Systems whose threads are the host's: CPP, OMP, TBB and thrust::seq, which all others derive
/// from.
template <class Policy>
concept host_policy =
    std::derived_from<Policy, ::thrust::system::detail::sequential::execution_policy<Policy>>;

/// Temporary memory, uninitialised, from the policy and back to it. Throws.
template <class T, class Policy>
class temporary {
 public:
  temporary(Policy const& policy, std::int64_t count)
      : policy_(policy), buffer_(::thrust::get_temporary_buffer<T>(policy, count)), count_(count) {
    if (buffer_.second >= count) return;
    count_ = buffer_.second;
    give_back();
    throw std::bad_alloc{};
  }
  temporary(temporary const&) = delete;
  temporary& operator=(temporary const&) = delete;
  ~temporary() {
    try {
      give_back();
    } catch (...) {  // a device that has failed: the next call says so
    }
  }

  T* data() const noexcept { return ::thrust::raw_pointer_cast(buffer_.first); }

 private:
  void give_back() { ::thrust::return_temporary_buffer(policy_, buffer_.first, count_); }

  using buffer = decltype(::thrust::get_temporary_buffer<T>(std::declval<Policy const&>(), 0));

  Policy const& policy_;
  buffer buffer_;
  std::int64_t count_;
};

/// Bytes of temporary memory, as aligned as the largest piece that is copied. Not of std::byte: for
/// types of namespace std, the make_pair in Thrust's CUDA system is ambiguous.
template <class Policy>
class temporary_bytes {
 public:
  temporary_bytes(Policy const& policy, std::int64_t bytes) : held_(policy, (bytes + 15) / 16) {}
  std::byte* data() const noexcept { return reinterpret_cast<std::byte*>(held_.data()); }

 private:
  struct alignas(16) piece {
    unsigned char bytes[16];
  };
  temporary<piece, Policy> held_;
};

/// Runs `body`, which needs about `bytes` of temporary memory and returns a status.
template <class Body>
status guarded(std::int64_t bytes, Body const& body) noexcept {
  try {
    return body();
  } catch (std::bad_alloc const&) {
    return {errc::out_of_memory, no_layer, bytes, 0};
  } catch (::thrust::system::system_error const& e) {
    return {errc::device_failure, no_layer, e.code().value(), 0};
  } catch (...) {
    return {errc::device_failure, no_layer, -1, 0};
  }
}

/// Calls f(0) to f(count - 1), in any order and several at once.
template <class Policy, class F>
void for_each_index(Policy const& policy, std::int64_t count, F const& f) {
  ::thrust::for_each_n(policy, ::thrust::counting_iterator<std::int64_t>(0), count, f);
}

}  // namespace bulk::detail

STRATA_NAMESPACE_END
