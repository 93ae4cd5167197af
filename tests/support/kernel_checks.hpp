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

#include "attention_cases.hpp"
#include "print.hpp"

namespace support {

/// Twice the naive computation's own error, and one rounding of the largest element: the naive sums
/// may happen to round to nearly nothing, and then no other order of summing is within twice that.
/// g++ with AVX2 and FMA needs it in three cases, other compilers and instruction sets in none.
inline void check_error(std::vector<float> const& got, std::vector<float> const& naive,
                        std::vector<double> const& exact) {
  tensor_distance const mine(got, exact), yardstick(naive, exact);
  CHECK(mine.error <= 2 * yardstick.error + 0x1p-24 * yardstick.magnitude);
}

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

/// Forward and backward of one problem, in any codecs.
template <class Problem, class Kernel>
void check_against_reference(Kernel const& kernel, Problem& problem) {
  auto const& c = problem.shape();
  CAPTURE(c.name);
  auto const view = problem.view();
  attention_call<float> got(problem), naive(problem);
  attention_call<double> exact(problem);
  REQUIRE(got.forward(kernel, view).ok());
  REQUIRE(naive.forward(strata::reference_attention{}, view).ok());
  REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
  check_error(got.out, naive.out, exact.out);
  check_error(got.lse, naive.lse, exact.lse);

  REQUIRE(got.backward(kernel, view).ok());
  REQUIRE(naive.backward(strata::reference_attention{}, view).ok());
  REQUIRE(exact.backward(strata::reference_attention{}, view).ok());
  check_error(got.d_q, naive.d_q, exact.d_q);
  auto const keep = [&](auto const& gradient, std::int32_t dim) {
    return existing(gradient, view, problem.max_length(), dim);
  };
  check_error(keep(got.dk, c.k_dim), keep(naive.dk, c.k_dim), keep(exact.dk, c.k_dim));
  check_error(keep(got.dv, c.v_dim), keep(naive.dv, c.v_dim), keep(exact.dv, c.v_dim));
  // And nothing was written beyond.
  for (auto const* gradient : {&got.dk, &got.dv}) {
    auto const dim = gradient == &got.dk ? c.k_dim : c.v_dim;
    auto const written =
        std::count_if(gradient->begin(), gradient->end(), [](float x) { return !std::isnan(x); });
    CHECK(as_size(written) == keep(*gradient, dim).size());
  }
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
