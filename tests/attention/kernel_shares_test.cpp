// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A share that is none is refused in every phase, before anything is written: it would write beyond
// the workspace of those that are.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <strata/attention/reference.hpp>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/cpu_kernels.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::share;
using strata::status;

namespace {

/// A streamed sequence that is split and one in tiles, in two shares.
support::attention_case two_kinds() { return {"", {1030, 70}, {1, 70}, 4, 2, 16, 16}; }

template <class Body>
void for_each_kernel_and_reference(Body&& body) {
  support::for_each_kernel(body);
  body(strata::reference_attention{});
}

bool untouched(support::attention_call<float> const& call) {
  for (auto const* tensor : {&call.out, &call.lse, &call.d_q, &call.dk, &call.dv})
    for (auto const x : *tensor)
      if (!std::isnan(x)) return false;
  return true;
}

}  // namespace

TEST_CASE("kernels: a share that is none is refused and writes nowhere") {
  support::attention_problem<strata::f32_codec> problem(two_kinds());
  auto const view = problem.view();
  for_each_kernel_and_reference([&](auto const& kernel) {
    support::attention_call<float> call(problem);
    // Enough for any of these numbers, in the middle of as much again.
    auto const bytes =
        static_cast<std::size_t>(std::max(kernel.workspace_bytes(call.rows, view, 8),
                                          kernel.backward_workspace_bytes(call.rows, view, 8)));
    std::vector<std::byte> const filled(3 * bytes, std::byte{0x5A});
    auto memory = filled;
    auto const workspace = std::span(memory).subspan(bytes, bytes);
    for (auto const& bad : {share{0, 0}, {0, -1}, {-1, 2}, {2, 2}, {5, 2}, {-7, -3}}) {
      status const expected{errc::bad_share, {}, bad.ith, bad.nth};
      CHECK(kernel.partial(bad, call.rows, view, workspace) == expected);
      CHECK(kernel.combine(bad, call.rows, view, workspace) == expected);
      CHECK(kernel.backward(bad, call.rows, view, static_cast<float const*>(call.d_out.data()),
                            call.d_q.data(), call.grad, workspace) == expected);
    }
    CHECK(memory == filled);
    CHECK(untouched(call));
  });
}

TEST_CASE("kernels: no number of shares needs less memory than one") {
  support::attention_problem<strata::f32_codec> problem(two_kinds());
  auto const view = problem.view();
  for_each_kernel_and_reference([&](auto const& kernel) {
    support::attention_call<float> const call(problem);
    for (std::int32_t const shares : {0, -1, -1000}) {
      CHECK(kernel.workspace_bytes(call.rows, view, shares) ==
            kernel.workspace_bytes(call.rows, view, 1));
      CHECK(kernel.backward_workspace_bytes(call.rows, view, shares) ==
            kernel.backward_workspace_bytes(call.rows, view, 1));
    }
  });
}
