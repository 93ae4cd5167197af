// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The reference attention against the textbook's matrices, and its gradients against finite
// differences, both in double.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>

#include "support/attention_cases.hpp"
#include "support/dense_attention.hpp"
#include "support/finite_differences.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"

namespace {

using support::as_size;
using support::attention_call;
using support::attention_case;
using support::attention_problem;
using support::tensor_distance;
using problem64 = attention_problem<strata::f64_codec>;

/// One (sequence, KV head) of a call as dense matrices.
struct dense_head {
  support::dense_attention rule;
  std::vector<double> q, k, v;
  std::vector<std::int32_t> q_positions, k_positions;

  dense_head(problem64& problem, attention_call<double> const& call, std::int32_t s,
             std::int32_t h) {
    auto const& c = problem.shape();
    auto const group = c.q_heads / c.kv_heads;
    rule = {group, 1, c.k_dim, c.v_dim, c.rule.scale, c.rule.softcap, 0, c.rule.causal, {}};
    if (c.rule.window != strata::unbounded_window) rule.window = c.rule.window;
    for (std::int32_t i = 0; i < group && c.sinks; ++i)
      rule.sinks.push_back(double{problem.sinks()[as_size(h * group + i)]});
    for (auto row = call.rows.row_begin(s); row < call.rows.row_end(s); ++row) {
      q_positions.push_back(problem.query_positions()[as_size(row)]);
      auto const at = call.q.begin() + (row * c.q_heads + h * group) * c.k_dim;
      q.insert(q.end(), at, at + group * c.k_dim);
    }
    auto const view = problem.view();
    auto const* const positions = view.positions(s, h);
    for (std::int32_t t = 0; t < view.length(s, h); ++t) {
      k_positions.push_back(positions == nullptr ? t : positions[t]);
      k.resize(k.size() + as_size(c.k_dim));
      view.load_k(s, h, t, k.data() + t * c.k_dim);
      v.resize(v.size() + as_size(c.v_dim));
      view.load_v(s, h, t, v.data() + t * c.v_dim);
    }
  }

  support::dense_attention::result forward() const {
    return rule.forward(q, q_positions, k, v, k_positions);
  }
};

/// Forward by the textbook, put together from its heads.
std::pair<std::vector<double>, std::vector<double>> textbook(problem64& problem,
                                                             attention_call<double> const& call) {
  auto const& c = problem.shape();
  auto const group = c.q_heads / c.kv_heads;
  std::vector<double> out(call.out.size()), lse(call.lse.size());
  for (std::int32_t s = 0; s < problem.num_seqs(); ++s)
    for (std::int32_t h = 0; h < c.kv_heads; ++h) {
      auto const dense = dense_head(problem, call, s, h).forward();
      auto const rows = call.rows.row_end(s) - call.rows.row_begin(s);
      for (std::int32_t i = 0; i < rows * group; ++i) {
        auto const row = call.rows.row_begin(s) + i / group;
        auto const at = as_size(row * c.q_heads + h * group + i % group);
        lse[at] = dense.lse[as_size(i)];
        for (std::size_t j = 0; j < as_size(c.v_dim); ++j)
          out[at * as_size(c.v_dim) + j] = dense.out[as_size(i) * as_size(c.v_dim) + j];
      }
    }
  return {out, lse};
}

std::vector<attention_case> small_cases() {
  attention_case const base{"plain", {5, 3}, {5, 2}, 4, 2, 3, 2};
  std::vector<attention_case> cases(6, base);
  cases[1].name = "softcap", cases[1].rule.softcap = 0.7, cases[1].rule.scale = 0.9;
  cases[2].name = "window, gaps", cases[2].rule.window = 4, cases[2].gaps = true;
  cases[3].name = "sinks", cases[3].sinks = true;
  cases[4].name = "not causal", cases[4].rule.causal = false;
  cases[5].name = "length per head", cases[5].lengths = {9, 7}, cases[5].lengths_per_head = true;
  return cases;
}

}  // namespace

TEST_CASE("reference: the textbook's result, with every feature and every layout") {
  for (auto const& c : support::attention_cases()) {
    CAPTURE(c.name);
    problem64 problem(c);
    attention_call<double> call(problem);
    REQUIRE(call.forward(strata::reference_attention{}, problem.view()).ok());
    auto const [out, lse] = textbook(problem, call);
    CHECK(tensor_distance(call.out, out).error < 1e-13);
    CHECK(tensor_distance(call.lse, lse).error < 1e-12);
  }
}

TEST_CASE("reference: float is as close to double as float can be") {
  for (auto const& c : support::attention_cases()) {
    CAPTURE(c.name);
    attention_problem<strata::f32_codec> problem(c);
    attention_call<float> call(problem);
    attention_call<double> exact(problem);
    REQUIRE(call.forward(strata::reference_attention{}, problem.view()).ok());
    REQUIRE(exact.forward(strata::reference_attention{}, problem.view()).ok());
    // A score of size n is off by n eps or so, and its weight by that factor.
    CHECK(tensor_distance(call.out, exact.out).error < 2e-6 * c.query_scale);
  }
}

TEST_CASE("reference: rows without visible keys are zeros of lse -infinity") {
  attention_case const c{"", {0, 4}, {2, 4}, 2, 1, 8, 8};
  problem64 problem(c);
  attention_call<double> call(problem, 0, 0);  // no keys at all
  REQUIRE(call.forward(strata::reference_attention{}, problem.view()).ok());
  for (auto const x : call.out) CHECK(x == 0);
  for (auto const x : call.lse) CHECK(x == -INFINITY);
}

TEST_CASE("reference: gradients are the slopes of the loss") {
  for (auto const& c : small_cases()) {
    CAPTURE(c.name);
    problem64 problem(c);
    support::check_slopes(strata::reference_attention{}, problem);
  }
}

TEST_CASE("reference: a workspace may start anywhere") {
  attention_case const c{"", {9, 30}, {3, 30}, 4, 2, 20, 12};
  support::check_workspace_anywhere<attention_problem<strata::f32_codec>>(
      strata::reference_attention{}, c);
}

TEST_CASE("reference: readers of one source add up, and an unwanted gradient is left alone") {
  attention_case const c{"", {20, 11}, {20, 11}, 4, 2, 6, 5};
  problem64 problem(c, 1);
  auto const view = problem.view();
  attention_call<double> first(problem);
  for (auto& x : problem.queries()) x = -x / 2;
  attention_call<double> second(problem);
  for (auto* call : {&first, &second}) {
    REQUIRE(call->forward(strata::reference_attention{}, view).ok());
    REQUIRE(call->backward(strata::reference_attention{}, view).ok());
  }
  auto const dk = second.dk, dv = second.dv;

  // The second reader onto the first one's sums: K added, V started anew.
  second.grad = first.grad;
  second.grad.add_k = true;
  auto const first_dk = first.dk;
  REQUIRE(second.backward(strata::reference_attention{}, view).ok());
  std::vector<double> sum(dk.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = first_dk[i] + dk[i];
  CHECK(tensor_distance(first.dk, sum).error < 1e-14);
  CHECK(support::same_bits(first.dv, dv));

  for (bool const want_k : {false, true}) {
    attention_call<double> call(problem);
    REQUIRE(call.forward(strata::reference_attention{}, view).ok());
    (want_k ? call.grad.dv : call.grad.dk) = nullptr;
    REQUIRE(call.backward(strata::reference_attention{}, view).ok());
    CHECK(support::same_bits(call.d_q, second.d_q));
    CHECK(support::same_bits(want_k ? call.dk : call.dv, want_k ? dk : dv));
    for (auto const x : want_k ? call.dv : call.dk) CHECK(std::isnan(x));
  }
}
