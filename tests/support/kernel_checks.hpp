// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What every kernel for queries of float must pass.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/attention/reference.hpp>

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/cpu/blocked.hpp>

#include "attention_cases.hpp"
#include "print.hpp"

namespace support {

/// By how many times a kernel's error exceeds its bound: twice the naive computation's own error,
/// and one rounding of the largest element. The naive sums may happen to round to nearly nothing,
/// and then no other order of summing is within twice that.
inline double excess(std::vector<float> const& got, std::vector<float> const& naive,
                     std::vector<double> const& exact) {
  tensor_distance const mine(got, exact), yardstick(naive, exact);
  auto const bound = 2 * yardstick.error + 0x1p-24 * yardstick.magnitude;
  if (mine.error == 0) return 0;
  return std::isfinite(bound) ? mine.error / bound : INFINITY;  // no bound, no test
}

inline bool is_nan(float x) { return std::isnan(x); }

/// Gradients of tokens that exist; those beyond a length belong to nobody.
template <class T, class View>
std::vector<T> existing(std::vector<T> const& gradient, View const& view, std::int32_t length,
                        std::int32_t dim) {
  std::vector<T> kept;
  for (std::int32_t s = 0; s < view.rows.num_seqs; ++s)
    for (std::int32_t t = 0; t < length; ++t)
      for (std::int32_t h = 0; h < view.kv_heads; ++h) {
        auto const at = gradient.begin() + ((s * length + t) * view.kv_heads + h) * dim;
        if (t < view.length(s, h)) kept.insert(kept.end(), at, at + dim);
      }
  return kept;
}

/// What the reference makes of a problem, forward and backward: in float, and in double.
struct reference_results {
  attention_call<float> naive;
  attention_call<double> exact;

  template <class Problem>
  explicit reference_results(Problem& problem) : reference_results(problem, problem.view()) {}
  template <class Problem, class View>
  reference_results(Problem& problem, View const& view) : naive(problem), exact(problem) {
    constexpr strata::reference_attention reference;
    REQUIRE(naive.forward(reference, view).ok());
    REQUIRE(exact.forward(reference, view).ok());
    REQUIRE(naive.backward(reference, view).ok());
    REQUIRE(exact.backward(reference, view).ok());
  }
};

/// Gradients of tokens that do not exist are left alone.
template <class View>
void check_nothing_beyond(attention_call<float> const& call, View const& view,
                          std::int32_t length) {
  auto const check = [&](std::vector<float> const& gradient, std::int32_t dim) {
    auto const kept = existing(gradient, view, length, dim);
    auto const untouched = [](auto const& x) { return std::count_if(x.begin(), x.end(), is_nan); };
    CHECK(untouched(gradient) - untouched(kept) ==
          static_cast<std::ptrdiff_t>(gradient.size() - kept.size()));
  };
  check(call.dk, view.k_dim);
  check(call.dv, view.v_dim);
}

/// The kernel whose forward pass a kernel's backward pass repeats to the bit. Rows that
/// cpu::attention streams have a lse that is rounded otherwise, by some 2^-24 |lse|, which
/// exp(score - lse) passes on; a naive pass that sees one key has no such error at all.
template <class Kernel>
Kernel const& training_forward(Kernel const& kernel) {
  return kernel;
}
inline strata::cpu::blocked_attention training_forward(strata::cpu::attention const&) { return {}; }

/// Forward and backward of one problem, in any codecs: the greatest excess of the tensors.
template <class Problem, class Kernel, class View>
double worst_excess(Kernel const& kernel, Problem& problem, reference_results const& expected,
                    View const& view) {
  attention_call<float> got(problem);
  auto const& [naive, exact] = expected;
  REQUIRE(got.forward(kernel, view).ok());
  auto const forward =
      std::max(excess(got.out, naive.out, exact.out), excess(got.lse, naive.lse, exact.lse));
  REQUIRE(got.forward(training_forward(kernel), view).ok());
  REQUIRE(got.backward(kernel, view).ok());
  check_nothing_beyond(got, view, problem.max_length());
  auto const of_keys = [&](auto const& g, auto const& n, auto const& e, std::int32_t dim) {
    auto const keep = [&](auto const& x) { return existing(x, view, problem.max_length(), dim); };
    return excess(keep(g), keep(n), keep(e));
  };
  return std::max({forward, excess(got.d_q, naive.d_q, exact.d_q),
                   of_keys(got.dk, naive.dk, exact.dk, view.k_dim),
                   of_keys(got.dv, naive.dv, exact.dv, view.v_dim)});
}

template <class Problem, class Kernel>
void check_against_reference(Kernel const& kernel, Problem& problem) {
  CAPTURE(problem.shape().name);
  reference_results const expected(problem);
  CHECK(worst_excess(kernel, problem, expected, problem.view()) <= 1);
}

template <class Problem, class Kernel>
void check_against_reference(Kernel const& kernel, attention_case const& c) {
  Problem problem(c);
  check_against_reference(kernel, problem);
}

/// A workspace may start anywhere: the bits are the same, and nothing is written before its first
/// cache line or behind its end.
template <class Problem, class Kernel>
void check_workspace_anywhere(Kernel const& kernel, attention_case const& c) {
  Problem problem(c);
  auto const view = problem.view();
  share_executor const exec{2, true};
  attention_call<float> aligned(problem);
  REQUIRE(aligned.forward(kernel, view, exec).ok());
  REQUIRE(aligned.backward(kernel, view, exec).ok());
  for (std::size_t const off : {0u, 1u, 4u, 63u}) {
    CAPTURE(off);
    attention_call<float> call(problem);
    workspace_memory memory;
    auto const needed = std::max(kernel.workspace_bytes(call.rows, view, exec.shares),
                                 kernel.backward_workspace_bytes(call.rows, view, exec.shares));
    auto const all = memory.get(needed + 128);
    auto const workspace = all.subspan(off, as_size(needed));
    REQUIRE(strata::attend(exec, kernel, call.rows, view, workspace).ok());
    REQUIRE(strata::attend_backward(exec, kernel, call.rows, view,
                                    static_cast<float const*>(call.d_out.data()), call.d_q.data(),
                                    call.grad, workspace)
                .ok());
    CHECK(same_bits(call.out, aligned.out));
    CHECK(same_bits(call.d_q, aligned.d_q));
    CHECK(same_bits(call.dk, aligned.dk));
    CHECK(same_bits(call.dv, aligned.dv));
    auto const untouched = [](std::byte b) { return b == std::byte{0xFF}; };
    auto const first_line = all.begin() + (off == 0 ? 0 : 64);
    CHECK(std::all_of(all.begin(), first_line, untouched));
    CHECK(std::all_of(all.begin() + static_cast<std::ptrdiff_t>(off + as_size(needed)), all.end(),
                      untouched));
  }
}

}  // namespace support
