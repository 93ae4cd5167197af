// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The blocked attention on the CPU against the reference in double: errors at most twice those of
// the float reference, and bits that depend on nothing but the sequence.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/reference.hpp>

#include "support/attention_cases.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"

namespace {

using support::as_size;
using support::attention_call;
using support::attention_case;
using support::attention_problem;
using support::same_bits;
using support::tensor_distance;
using problem32 = attention_problem<strata::f32_codec>;

constexpr strata::cpu::blocked_attention blocked;
constexpr strata::reference_attention reference;

static_assert(
    strata::differentiable_kernel<strata::cpu::blocked_attention, float, problem32::view_type>);
static_assert(
    strata::differentiable_kernel<strata::cpu::blocked_attention, double, problem32::view_type>);

/// Rows [first, last) of a call with one sequence, and only the keys before `keys`.
void forward_rows(attention_call<float>& call, problem32& problem, std::int32_t first,
                  std::int32_t last, std::int32_t keys) {
  auto const& c = problem.shape();
  auto view = problem.view();
  view.rows.lengths = nullptr;
  view.rows.length = keys;
  auto const whole = call.rows;
  call.rows.offsets = nullptr;
  call.rows.rows_per_seq = last - first;
  call.rows.q += first * c.q_heads * c.k_dim;
  call.rows.out += first * c.q_heads * c.v_dim;
  call.rows.lse += first * c.q_heads;
  call.rows.positions += first;
  CHECK(call.forward(blocked, view).ok());
  call.rows = whole;
}

}  // namespace

TEST_CASE("blocked: every case within twice the error of the float reference") {
  for (auto const& c : support::attention_cases())
    support::check_against_reference<problem32>(blocked, c);
}

TEST_CASE("blocked: queries of double") {
  for (auto const& c : support::attention_cases()) {
    CAPTURE(c.name);
    attention_problem<strata::f64_codec> problem(c);
    auto const view = problem.view();
    attention_call<double> got(problem), exact(problem);
    for (auto* call : {&got, &exact}) {
      REQUIRE((call == &got ? call->forward(blocked, view) : call->forward(reference, view)).ok());
      REQUIRE(
          (call == &got ? call->backward(blocked, view) : call->backward(reference, view)).ok());
    }
    CHECK(tensor_distance(got.out, exact.out).error < 1e-13);
    CHECK(tensor_distance(got.lse, exact.lse).error < 1e-13);
    CHECK(tensor_distance(got.d_q, exact.d_q).error < 1e-12);
    CHECK(tensor_distance(got.dk, exact.dk).error < 1e-11);
    CHECK(tensor_distance(got.dv, exact.dv).error < 1e-11);
  }
}

TEST_CASE("blocked: the number of shares and their order change no bit") {
  for (auto const& c : support::attention_cases()) {
    CAPTURE(c.name);
    problem32 problem(c);
    auto const view = problem.view();
    attention_call<float> serial(problem);
    REQUIRE(serial.forward(blocked, view).ok());
    REQUIRE(serial.backward(blocked, view).ok());
    for (auto const& exec : support::all_executors()) {
      attention_call<float> call(problem);
      REQUIRE(call.forward(blocked, view, exec).ok());
      REQUIRE(call.backward(blocked, view, exec).ok());
      CHECK(same_bits(call.out, serial.out));
      CHECK(same_bits(call.lse, serial.lse));
      CHECK(same_bits(call.d_q, serial.d_q));
      CHECK(same_bits(call.dk, serial.dk));
      CHECK(same_bits(call.dv, serial.dv));
    }
  }
}

TEST_CASE("blocked: neighbours in the batch change no bit") {
  attention_case c{"", {1100, 3, 64, 513}, {2, 3, 64, 20}, 4, 2, 32, 16};
  problem32 problem(c);
  auto const view = problem.view();
  attention_call<float> batch(problem);
  REQUIRE(batch.forward(blocked, view, support::share_executor{3}).ok());
  for (std::int32_t s = 0; s < problem.num_seqs(); ++s) {
    CAPTURE(s);
    attention_call<float> alone(problem);
    auto one = view;
    one.rows.num_seqs = 1;
    one.rows.lengths += s;
    one.k.row_of += s;
    one.v.row_of += s;
    auto const row = batch.rows.row_begin(s);
    auto const first = row * c.q_heads, last = batch.rows.row_end(s) * c.q_heads;
    alone.rows.num_seqs = 1;
    alone.rows.offsets = nullptr;
    alone.rows.rows_per_seq = c.rows[as_size(s)];
    alone.rows.q += first * c.k_dim;
    alone.rows.out += first * c.v_dim;
    alone.rows.lse += first;
    alone.rows.positions += row;
    REQUIRE(alone.forward(blocked, one).ok());
    CHECK(
        std::equal(alone.lse.begin() + first, alone.lse.begin() + last, batch.lse.begin() + first));
    CHECK(std::equal(alone.out.begin() + first * c.v_dim, alone.out.begin() + last * c.v_dim,
                     batch.out.begin() + first * c.v_dim));
  }
}

TEST_CASE("blocked: a full pass, chunks and token by token agree bit for bit") {
  for (std::int32_t const window : {strata::unbounded_window, 100}) {
    attention_case c{"", {600}, {600}, 2, 1, 16, 20};
    c.rule.window = window;
    c.sinks = true;
    problem32 problem(c);
    attention_call<float> full(problem), chunks(problem), tokens(problem);
    REQUIRE(full.forward(blocked, problem.view()).ok());
    std::int32_t begin = 0;
    for (std::int32_t const end : {1, 50, 177, 512, 600}) {
      forward_rows(chunks, problem, begin, end, end);
      begin = end;
    }
    for (std::int32_t t = 0; t < 600; ++t) forward_rows(tokens, problem, t, t + 1, t + 1);
    for (auto const* call : {&chunks, &tokens}) {
      CHECK(same_bits(call->out, full.out));
      CHECK(same_bits(call->lse, full.lse));
    }
  }
}

TEST_CASE("blocked: ranges of keys merge to the whole") {
  for (auto const& c : support::attention_cases()) {
    CAPTURE(c.name);
    problem32 problem(c);
    auto const view = problem.view();
    attention_call<float> whole(problem), first(problem, 0, 30);
    attention_call<double> exact(problem);
    REQUIRE(whole.forward(blocked, view).ok());
    REQUIRE(exact.forward(reference, view).ok());
    REQUIRE(first.forward(blocked, view).ok());
    std::int64_t const ranges[][2] = {{30, 31}, {31, 31}, {31, 600}, {600, strata::all_keys}};
    for (auto const& [begin, end] : ranges) {
      attention_call<float> next(problem, begin, end);
      REQUIRE(next.forward(blocked, view).ok());
      for (std::size_t i = 0; i < next.lse.size(); ++i)
        strata::merge(&first.out[i * as_size(c.v_dim)], first.lse[i],
                      &next.out[i * as_size(c.v_dim)], next.lse[i], c.v_dim);
    }
    // An lse of size n is known to n roundings, and so is the weight that comes of it.
    auto const lse = tensor_distance(exact.lse, exact.lse).magnitude;
    auto const out = tensor_distance(exact.out, exact.out).magnitude;
    CHECK(tensor_distance(first.lse, exact.lse).error <= 8 * 0x1p-24 * (1 + lse));
    CHECK(tensor_distance(first.out, exact.out).error <= 8 * 0x1p-24 * (1 + lse) * (1 + out));
  }
}

TEST_CASE("blocked: a NaN goes no further than those who see it") {
  attention_case c{"", {70, 70}, {70, 70}, 2, 2, 8, 8};
  problem32 clean(c);
  attention_call<float> before(clean);
  REQUIRE(before.forward(blocked, clean.view()).ok());
  REQUIRE(before.backward(blocked, clean.view()).ok());
  float const bad[] = {NAN, INFINITY};
  for (auto const poison : bad)
    for (bool const in_v : {false, true}) {
      problem32 problem(c);
      std::vector<float> const row(8, poison);  // of token 40 in sequence 1, KV head 0
      in_v ? problem.write_v(1, 0, 40, row) : problem.write_k(1, 0, 40, row);
      attention_call<float> call(problem);
      REQUIRE(call.forward(blocked, problem.view()).ok());
      std::int32_t reached = 0;
      for (std::int32_t i = 0; i < 140 * 2; ++i) {
        bool const sees = i >= (70 + 40) * 2 && i % 2 == 0;
        bool const same = std::equal(&call.out[as_size(i * 8)], &call.out[as_size(i * 8)] + 8,
                                     &before.out[as_size(i * 8)]);
        CHECK(same == !sees);
        reached += !same;
      }
      CHECK(reached == 30);
      REQUIRE(call.backward(blocked, problem.view()).ok());
      for (std::int32_t i = 0; i < 70 * 2 * 8; ++i) {  // sequence 0
        CHECK(call.d_q[as_size(i)] == before.d_q[as_size(i)]);
        CHECK(call.dk[as_size(i)] == before.dk[as_size(i)]);
        CHECK(call.dv[as_size(i)] == before.dv[as_size(i)]);
      }
      for (std::int32_t row_index = 70; row_index < 70 + 40; ++row_index)  // rows before it
        for (std::int32_t i = 0; i < 8; ++i)
          CHECK(call.d_q[as_size(row_index * 16 + i)] == before.d_q[as_size(row_index * 16 + i)]);
    }
}

TEST_CASE("blocked: an infinite value whose weight vanishes later leaves nothing behind") {
  attention_case const c{"", {600}, {1}, 1, 1, 8, 8};
  for (std::int32_t const winner : {20, 100, 599}) {  // in the same tile, the next, the next split
    problem32 problem(c);
    problem.queries().assign(8, 20.0f);
    problem.write_v(0, 0, 10, std::vector<float>(8, INFINITY));
    problem.write_k(0, 0, winner, std::vector<float>(8, 10.0f));
    attention_call<float> call(problem);
    REQUIRE(call.forward(blocked, problem.view()).ok());
    std::vector<float> value(8);
    problem.view().load_v(0, 0, winner, value.data());
    CHECK(call.out == value);
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
  REQUIRE(exact.forward(reference, problem.view()).ok());
  REQUIRE(exact.backward(reference, problem.view()).ok());
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
  refused([](auto& q, auto&, auto&) { q.num_seqs = 1; }, errc::shape_mismatch);
  refused([](auto& q, auto&, auto&) { q.q = nullptr; }, errc::null_pointer);
  refused([](auto& q, auto&, auto&) { q.rule.window = 0; }, errc::value_out_of_range);
  refused([](auto& q, auto&, auto&) { q.rule.scale = NAN; }, errc::not_finite);
  refused([](auto&, auto& view, auto&) { view.kv_heads = 0; }, errc::shape_mismatch);
  refused([](auto&, auto& view, auto&) { view.k.data = nullptr; }, errc::null_pointer);

  attention_call<float> call(problem);
  call.rows.lse = nullptr;
  CHECK(call.backward(blocked, good).code == errc::null_pointer);
}
