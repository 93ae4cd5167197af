// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What tests run attention calls with: shares without threads, and memory for the workspace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <strata/executor.hpp>

namespace support {

/// Runs the shares of a job one after another, from the first or from the last. What the order or
/// the number of shares changes, threads would change too.
struct share_executor {
  std::int32_t shares = 1;
  bool descending = false;

  std::int32_t num_shares() const noexcept { return shares; }

  template <class Body>
  strata::status run(Body&& body) const noexcept {
    strata::status lowest_failure;
    for (std::int32_t i = 0; i < shares; ++i) {
      auto const ith = descending ? shares - 1 - i : i;
      auto const s = body(strata::share{ith, shares});
      if (!s.ok() && (descending || lowest_failure.ok())) lowest_failure = s;
    }
    return lowest_failure;
  }
};
static_assert(strata::executor<share_executor>);

/// Any executor, for a while: what is called with one is compiled once, whatever executors there
/// are.
class executor_ref {
 public:
  template <strata::executor Exec>
  explicit executor_ref(Exec& exec)
      : shares_(exec.num_shares()),
        object_(const_cast<void*>(static_cast<void const*>(&exec))),
        run_([](void* object, body_ref body) { return static_cast<Exec*>(object)->run(body); }) {}

  std::int32_t num_shares() const noexcept { return shares_; }

  template <class Body>
  strata::status run(Body&& body) const noexcept {
    auto const call = [](void const* object, strata::share part) {
      return (*static_cast<std::remove_reference_t<Body> const*>(object))(part);
    };
    return run_(object_, {&body, call});
  }

 private:
  struct body_ref {
    void const* object;
    strata::status (*call)(void const*, strata::share);
    strata::status operator()(strata::share part) const noexcept { return call(object, part); }
  };

  std::int32_t shares_;
  void* object_;
  strata::status (*run_)(void*, body_ref);
};
static_assert(strata::executor<executor_ref>);

/// More shares than rows or heads are among them.
inline std::vector<share_executor> all_executors() {
  return {{1, false}, {2, true}, {3, false}, {31, true}};
}

/// Memory that starts on a 64-byte boundary and is poisoned before every use: a kernel that reads
/// what it did not write shows at once.
class workspace_memory {
 public:
  std::span<std::byte> get(std::int64_t bytes) {
    auto const size = static_cast<std::size_t>(bytes);
    memory_.assign(size + 64, std::byte{0xFF});
    auto const address = reinterpret_cast<std::uintptr_t>(memory_.data());
    return {memory_.data() + (64 - address % 64) % 64, size};
  }

 private:
  std::vector<std::byte> memory_;
};

}  // namespace support
