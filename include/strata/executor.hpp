// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How work is spread over threads. A kernel is handed a share and never starts a thread itself.
#pragma once

#include <concepts>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// Part `ith` of `nth` equal parts of a job, 0 <= ith < nth. An engine with threads of its own
/// passes its own numbers.
struct share {
  std::int32_t ith = 0;
  std::int32_t nth = 1;

  /// The first of `count` items that belongs to this share; the share ends where the next begins.
  constexpr std::int64_t begin(std::int64_t count) const noexcept { return count * ith / nth; }
  constexpr std::int64_t end(std::int64_t count) const noexcept { return count * (ith + 1) / nth; }
};

/// Refuses a share that is none: it would work on, and in, memory beyond that of the others. Always
/// inlined: kernels of several instruction sets call it, and a linker would keep one body for all.
[[gnu::always_inline]] constexpr status check(share part) noexcept {
  if (part.nth < 1 || part.ith < 0 || part.ith >= part.nth)
    return {errc::bad_share, no_layer, part.ith, part.nth};
  return {};
}

namespace detail {

/// A body to ask an executor about. Named: nvcc 13 finds no lambda in a concept callable.
struct no_work {
  constexpr status operator()(share) const noexcept { return {}; }
};

}  // namespace detail

/// Runs `body(share)` for every share and returns when all are done: the barrier between `partial`
/// and `combine`. Returns the failure of the lowest share, if any.
template <class E>
concept executor = requires(E& e, detail::no_work const& body) {
  { e.num_shares() } noexcept -> std::same_as<std::int32_t>;
  { e.run(body) } noexcept -> std::same_as<status>;
};

/// The calling thread does everything.
struct serial_executor {
  constexpr std::int32_t num_shares() const noexcept { return 1; }
  template <class Body>
  constexpr status run(Body&& body) const noexcept {
    return body(share{0, 1});
  }
};

STRATA_NAMESPACE_END
