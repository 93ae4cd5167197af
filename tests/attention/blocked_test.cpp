// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The blocked attention on the CPU against the reference in double: errors at most twice those of
// the float reference, gradients that add up, and calls that are refused. What it has in common with
// other kernels is tested with them, in kernel_*_test.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/reference.hpp>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"

namespace {

using support::as_size;
using support::attention_call;
using support::attention_case;
using support::attention_problem;
using support::same_bits;
using support::tensor_distance;
using problem32 = attention_problem<strata::f32_codec>;

constexpr strata::cpu::blocked_attention blocked;

static_assert(
    strata::differentiable_kernel<strata::cpu::blocked_attention, float, problem32::view_type>);
static_assert(
    strata::differentiable_kernel<strata::cpu::blocked_attention, double, problem32::view_type>);

}  // namespace

TEST_CASE("blocked: every case within twice the error of the float reference") {
  for (auto const& c : support::sampled(support::attention_cases(), 1))
    support::check_against_reference<problem32>(blocked, c);
}

TEST_CASE("blocked: queries of double") {
  for (auto const& c : support::sampled(support::attention_cases(), 1)) {
    CAPTURE(c.name);
    attention_problem<strata::f64_codec> problem(c);
    auto const view = problem.view();
    attention_call<double> got(problem), exact(problem);
    for (auto* call : {&got, &exact}) {
      REQUIRE((call == &got ? call->forward(blocked, view)
                            : call->forward(strata::reference_attention{}, view))
                  .ok());
      REQUIRE((call == &got ? call->backward(blocked, view)
                            : call->backward(strata::reference_attention{}, view))
                  .ok());
    }
    CHECK(tensor_distance(got.out, exact.out).error < 1e-13);
    CHECK(tensor_distance(got.lse, exact.lse).error < 1e-13);
    CHECK(tensor_distance(got.d_q, exact.d_q).error < 1e-12);
    CHECK(tensor_distance(got.dk, exact.dk).error < 1e-11);
    CHECK(tensor_distance(got.dv, exact.dv).error < 1e-11);
  }
}

TEST_CASE("blocked: readers of one source add up, and an unwanted gradient is left alone") {
  attention_case const c{"", {100, 11}, {100, 11}, 4, 2, 20, 12};
  problem32 problem(c);
  auto const view = problem.view();
  attention_call<float> one(problem), two(problem);
  for (auto* call : {&one, &two}) {
    REQUIRE(call->forward(blocked, view).ok());
    REQUIRE(call->backward(blocked, view).ok());
  }
  two.grad.add_k = two.grad.add_v = true;
  REQUIRE(two.backward(blocked, view).ok());
  for (auto const& [sum, part] : {std::pair{&two.dk, &one.dk}, std::pair{&two.dv, &one.dv}}) {
    auto doubled = *part;
    for (auto& x : doubled) x *= 2;
    tensor_distance const distance(*sum, doubled);
    CHECK(distance.error <= 8 * 0x1p-24 * distance.magnitude);
  }
  for (bool const want_k : {false, true}) {
    attention_call<float> call(problem);
    REQUIRE(call.forward(blocked, view).ok());
    (want_k ? call.grad.dv : call.grad.dk) = nullptr;
    REQUIRE(call.backward(blocked, view).ok());
    CHECK(same_bits(call.d_q, one.d_q));
    CHECK(same_bits(want_k ? call.dk : call.dv, want_k ? one.dk : one.dv));
    for (auto const x : want_k ? call.dv : call.dk) CHECK(std::isnan(x));
  }
}

TEST_CASE("blocked and reference: a key whose score is -infinity is a masked key") {
  attention_case const c{"", {70, 130}, {70, 130}, 4, 2, 8, 8};
  problem32 problem(c);
  for (auto& x : problem.queries()) x = std::abs(x) + 0.1f;
  std::vector<float> const far(8, -INFINITY);
  for (std::int32_t const t : {0, 40, 64}) problem.write_k(1, 0, t, far);
  problem.write_k(0, 1, 0, far);  // the only key that row 0 sees: its lse is -infinity
  support::check_against_reference(blocked, problem);
  attention_call<double> exact(problem);
  REQUIRE(exact.forward(strata::reference_attention{}, problem.view()).ok());
  REQUIRE(exact.backward(strata::reference_attention{}, problem.view()).ok());
  for (auto const* tensor : {&exact.out, &exact.d_q})
    CHECK(std::all_of(tensor->begin(), tensor->end(), [](double x) { return std::isfinite(x); }));
  for (std::int32_t i = 0; i < 8; ++i) {
    auto const masked = as_size(((1 * 130 + 40) * 2 + 0) * 8 + i);
    CHECK(exact.dk[masked] == 0);
    CHECK(exact.dv[masked] == 0);
  }
  CHECK(exact.lse[as_size(2)] == -INFINITY);
}

TEST_CASE("blocked: a workspace may start anywhere") {
  attention_case const c{"", {1100, 40}, {3, 40}, 4, 2, 20, 12};
  support::check_workspace_anywhere<problem32>(blocked, c);
}

TEST_CASE("blocked: a refused call writes nothing and is refused by every share and phase") {
  attention_case const c{"", {40, 20}, {4, 2}, 4, 2, 8, 8};
  problem32 problem(c);
  auto const good = problem.view();
  auto const refused = [&](auto&& change, strata::errc expected) {
    attention_call<float> call(problem);
    auto view = good;
    std::int64_t missing = 0;
    change(call.rows, view, missing);
    auto bytes = std::max(blocked.workspace_bytes(call.rows, good, 2),
                          blocked.backward_workspace_bytes(call.rows, good, 2));
    if (missing > 0) bytes = missing == 1 ? blocked.workspace_bytes(call.rows, good, 2) - 1 : 0;
    std::vector<std::byte> memory(as_size(bytes), std::byte{0x5A});
    std::vector<std::byte> const untouched = memory;
    for (std::int32_t ith = 0; ith < 2; ++ith) {
      strata::share const part{ith, 2};
      CHECK(blocked.partial(part, call.rows, view, memory).code == expected);
      CHECK(blocked.combine(part, call.rows, view, memory).code == expected);
      if (missing == 1) continue;
      CHECK(blocked
                .backward(part, call.rows, view, static_cast<float const*>(call.d_out.data()),
                          call.d_q.data(), call.grad, memory)
                .code == expected);
    }
    CHECK(memory == untouched);
    for (auto const* tensor : {&call.out, &call.lse, &call.d_q, &call.dk, &call.dv})
      for (auto const x : *tensor) CHECK(std::isnan(x));
  };
  using strata::errc;
  refused([](auto&, auto&, auto& missing) { missing = 1; }, errc::workspace_too_small);
  refused([](auto&, auto&, auto& missing) { missing = 2; }, errc::workspace_too_small);
  refused([](auto& q, auto&, auto&) { q.q_heads = 3; }, errc::heads_not_divisible);
  refused([](auto& q, auto&, auto&) { q.num_seqs = 1; }, errc::num_seqs_mismatch);
  refused([](auto& q, auto&, auto&) { q.q = nullptr; }, errc::null_pointer);
  refused([](auto& q, auto&, auto&) { q.rule.window = 0; }, errc::bad_window);
  refused([](auto& q, auto&, auto&) { q.rule.scale = NAN; }, errc::bad_scale);
  refused([](auto&, auto& view, auto&) { view.kv_heads = 0; }, errc::bad_view_heads);
  refused([](auto&, auto& view, auto&) { view.k.data = nullptr; }, errc::null_pointer);

  attention_call<float> call(problem);
  call.rows.lse = nullptr;
  CHECK(call.backward(blocked, good) == null_pointer(strata::tensor::lse));
}
