// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What is no number shows in the rows that see it and nowhere else, forward and backward.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/cache/codec.hpp>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/cpu_kernels.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"

namespace {

using support::as_size;
using support::attention_call;
using support::attention_case;
using support::same_bits;
using problem32 = support::attention_problem<strata::f32_codec>;

/// Decode and prefill beside each other, with and without tokens that no row sees.
std::vector<attention_case> poisoned_shapes() {
  std::vector<attention_case> list = {{"all rows", {70, 70}, {70, 70}, 4, 2, 16, 8},
                                      {"decode", {70, 600}, {1, 3}, 8, 2, 64, 64},
                                      {"tokens ahead", {70, 600}, {40, 4}, 6, 2, 80, 72},
                                      {"window", {70, 140}, {50, 90}, 4, 2, 128, 96}};
  list[1].layout = {16, 3};
  list[2].ahead = 570;
  list[3].rule.window = 30;
  return list;
}

/// Calls body(row, query head, sequence) for all of a call.
template <class Body>
void for_each_row(attention_call<float> const& call, Body&& body) {
  for (std::int32_t s = 0; s < call.rows.num_seqs; ++s)
    for (auto row = call.rows.row_begin(s); row < call.rows.row_end(s); ++row)
      for (std::int32_t h = 0; h < call.rows.q_heads; ++h) body(row, h, s);
}

/// A clean call, and the same with a change, of one kernel.
template <class Kernel>
struct comparison {
  attention_call<float> clean, changed;
  attention_case const& shape;

  template <class Change>
  comparison(Kernel const& kernel, problem32& before, problem32& after, Change&& change)
      : clean(before), changed(after), shape(before.shape()) {
    change(changed);
    for (auto* call : {&clean, &changed}) {
      auto const view = (call == &clean ? before : after).view();
      REQUIRE(call->forward(kernel, view, support::share_executor{3}).ok());
      REQUIRE(call->backward(kernel, view, support::share_executor{3}).ok());
    }
  }

  /// The same bits; in the changed sequence and KV head as near as sums are.
  static bool same(float const* a, float const* b, std::int32_t n, bool own) {
    if (!own || support::same_bits_in_chunks<Kernel>) return std::equal(a, a + n, b);
    auto const near = [](float x, float y) { return std::abs(x - y) <= 1e-5f * (1 + std::abs(y)); };
    return std::equal(a, a + n, b, near);
  }
  bool same_row(std::vector<float> const& a, std::vector<float> const& b, std::int32_t dim,
                std::int32_t row, std::int32_t head, bool own) const {
    auto const at = as_size((row * shape.q_heads + head) * dim);
    return same(&a[at], &b[at], dim, own);
  }
  bool same_output(std::int32_t row, std::int32_t head, bool own) const {
    return same_row(clean.out, changed.out, shape.v_dim, row, head, own) &&
           same_lse(row, head, own);
  }
  bool same_lse(std::int32_t row, std::int32_t head, bool own) const {
    return same_row(clean.lse, changed.lse, 1, row, head, own);
  }
  bool same_d_q(std::int32_t row, std::int32_t head, bool own) const {
    return same_row(clean.d_q, changed.d_q, shape.k_dim, row, head, own);
  }
  bool same_dk_dv(std::int32_t s, std::int32_t h, std::int32_t t, bool own) const {
    auto const at = [&](auto const& stride) {
      return as_size(s * stride.seq + t * stride.token + h * stride.head);
    };
    auto const k = at(clean.grad.dk_stride), v = at(clean.grad.dv_stride);
    return same(&clean.dk[k], &changed.dk[k], shape.k_dim, own) &&
           same(&clean.dv[v], &changed.dv[v], shape.v_dim, own);
  }
  /// Whether all of a row's output is `number`, NaN or infinite.
  bool output_is(float number, std::int32_t row, std::int32_t head) const {
    auto const at = changed.out.begin() + (row * shape.q_heads + head) * shape.v_dim;
    return std::all_of(at, at + shape.v_dim,
                       [&](float x) { return std::isnan(number) ? std::isnan(x) : x == number; });
  }
};

/// A token whose K or V is all one number.
struct site {
  std::int32_t seq, head, token;
  bool in_v;
  float number;
};

template <class Kernel>
void check_token(Kernel const& kernel, problem32& before, attention_case const& c, site const& p) {
  problem32 after(c);
  std::vector<float> const row_of_it(as_size(p.in_v ? c.v_dim : c.k_dim), p.number);
  p.in_v ? after.write_v(p.seq, p.head, p.token, row_of_it)
         : after.write_k(p.seq, p.head, p.token, row_of_it);
  comparison const calls(kernel, before, after, [](auto&) {});
  auto const group = c.q_heads / c.kv_heads;
  auto const& positions = before.query_positions();
  std::vector<bool> reached(as_size(before.max_length()), false);  // tokens, by its gradient
  std::int32_t wrong = 0;
  for_each_row(calls.changed, [&](std::int32_t row, std::int32_t h, std::int32_t s) {
    bool const own = s == p.seq && h / group == p.head;
    auto const position = positions[as_size(row)];
    if (!own || !c.rule.sees(position, p.token)) {
      wrong += !calls.same_output(row, h, own) || !calls.same_d_q(row, h, own);
      return;
    }
    wrong += !calls.output_is(p.in_v ? p.number : NAN, row, h);
    wrong += p.in_v ? !calls.same_lse(row, h, own)
                    : !std::isnan(calls.changed.lse[as_size(row * c.q_heads + h)]);
    for (std::int32_t t = 0; t < before.max_length(); ++t)
      if (c.rule.sees(position, t)) reached[as_size(t)] = true;
  });
  CHECK(wrong == 0);
  support::for_each_token(before.view(), [&](auto s, auto h, auto t) {
    bool const own = s == p.seq && h == p.head;
    if (!own || !reached[as_size(t)]) wrong += !calls.same_dk_dv(s, h, t, own);
  });
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("kernels: a NaN or an infinity in K or V shows in the rows that see it alone") {
  for (auto const& c : support::sampled(poisoned_shapes(), 1)) {
    CAPTURE(c.name);
    problem32 before(c);
    support::for_each_kernel([&](auto const& kernel) {
      for (float const number : {NAN, INFINITY, -INFINITY})
        for (bool const in_v : {false, true})
          for (std::int32_t const token : {0, 25, 40, 64, c.lengths[1] - 1}) {
            CAPTURE(number);
            CAPTURE(in_v);
            CAPTURE(token);
            check_token(kernel, before, c, {1, 1, token, in_v, number});
          }
    });
  }
}

TEST_CASE("kernels: a NaN in a query stays in its row and in the gradients of the keys it sees") {
  for (auto const& c : poisoned_shapes()) {
    CAPTURE(c.name);
    problem32 problem(c);
    auto const poisoned_row = problem.offsets()[1] + c.rows[1] / 2;
    auto const group = c.q_heads / c.kv_heads, poisoned_head = group;  // the first of KV head 1
    support::for_each_kernel([&](auto const& kernel) {
      comparison const calls(kernel, problem, problem, [&](auto& call) {
        call.q[as_size((poisoned_row * c.q_heads + poisoned_head) * c.k_dim + 3)] = NAN;
      });
      std::int32_t wrong = 0;
      for_each_row(calls.changed, [&](std::int32_t row, std::int32_t h, std::int32_t s) {
        if (row == poisoned_row && h == poisoned_head)
          wrong += !calls.output_is(NAN, row, h);
        else
          wrong += !calls.same_output(row, h, s == 1) || !calls.same_d_q(row, h, s == 1);
      });
      CHECK(wrong == 0);
      auto const position = problem.query_positions()[as_size(poisoned_row)];
      support::for_each_token(problem.view(), [&](auto s, auto h, auto t) {
        bool const own = s == 1 && h == 1;
        wrong += calls.same_dk_dv(s, h, t, own) == (own && c.rule.sees(position, t));
      });
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("kernels: a NaN in d_out stays in its row and in the gradients of the keys it sees") {
  for (auto const& c : poisoned_shapes()) {
    CAPTURE(c.name);
    problem32 problem(c);
    auto const poisoned_row = problem.offsets()[1] + c.rows[1] / 2;
    support::for_each_kernel([&](auto const& kernel) {
      comparison const calls(kernel, problem, problem, [&](auto& call) {
        call.d_out[as_size(poisoned_row * c.q_heads * c.v_dim)] = NAN;  // of query head 0
      });
      std::int32_t wrong = 0;
      for_each_row(calls.changed, [&](std::int32_t row, std::int32_t h, std::int32_t s) {
        bool const poisoned = row == poisoned_row && h == 0;
        wrong += !calls.same_output(row, h, false);
        wrong += calls.same_d_q(row, h, s == 1) == poisoned;
      });
      CHECK(wrong == 0);
      auto const position = problem.query_positions()[as_size(poisoned_row)];
      support::for_each_token(problem.view(), [&](auto s, auto h, auto t) {
        bool const own = s == 1 && h == 0;
        wrong += calls.same_dk_dv(s, h, t, own) == (own && c.rule.sees(position, t));
      });
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("kernels: a sequence of nothing but NaN changes no bit of its neighbours") {
  attention_case c{"", {600, 130, 70, 0, 33}, {2, 50, 1, 3, 33}, 8, 2, 64, 72};
  for (bool const paged : {false, true}) {
    if (paged) c.layout = {16, 5};
    problem32 before(c), after(c);
    auto const row = [&](std::int32_t dim) { return std::vector<float>(as_size(dim), NAN); };
    support::for_each_token(after.view(), [&](auto s, auto h, auto t) {
      if (s == 1) after.write_k(s, h, t, row(c.k_dim)), after.write_v(s, h, t, row(c.v_dim));
    });
    support::for_each_kernel([&](auto const& kernel) {
      comparison const calls(kernel, before, after, [&](auto& call) {
        auto const first = before.offsets()[1] * c.q_heads, last = before.offsets()[2] * c.q_heads;
        std::fill(&call.q[as_size(first * c.k_dim)], &call.q[as_size(last * c.k_dim)], NAN);
        std::fill(&call.d_out[as_size(first * c.v_dim)], &call.d_out[as_size(last * c.v_dim)], NAN);
      });
      std::int32_t wrong = 0;
      for_each_row(calls.changed, [&](std::int32_t r, std::int32_t h, std::int32_t s) {
        if (s == 1)
          wrong += !calls.output_is(NAN, r, h);
        else
          wrong += !calls.same_output(r, h, false) || !calls.same_d_q(r, h, false);
      });
      support::for_each_token(before.view(), [&](auto s, auto h, auto t) {
        wrong += calls.same_dk_dv(s, h, t, false) == (s == 1);
      });
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("kernels: what lies in memory beyond a length changes no bit") {
  for (std::int32_t const block : {0, 1, 16, 17, 64}) {
    attention_case c{"", {65, 30, 513, 0}, {65, 2, 4, 2}, 8, 2, 80, 7};
    c.layout = {block, block};
    problem32 before(c), after(c);  // where nothing was written, there is NaN
    auto const view = after.view();
    for (std::int32_t s = 0; s < 4; ++s)
      for (std::int32_t h = 0; h < 2; ++h)
        for (std::int64_t t = view.length(s, h); t < view.k.capacity(); ++t) {
          auto const token = static_cast<std::int32_t>(t);
          after.write_k(s, h, token, std::vector<float>(80, 1e30f));
          after.write_v(s, h, token, std::vector<float>(7, 1e30f));
        }
    support::for_each_kernel([&](auto const& kernel) {
      comparison const calls(kernel, before, after, [](auto&) {});
      for (auto const x : calls.clean.out) REQUIRE(std::isfinite(x));
      for (auto const tensor :
           {&attention_call<float>::out, &attention_call<float>::lse, &attention_call<float>::d_q,
            &attention_call<float>::dk, &attention_call<float>::dv})
        CHECK(same_bits(calls.clean.*tensor, calls.changed.*tensor));
    });
  }
}

TEST_CASE("kernels: an infinite value whose weight vanishes later leaves nothing behind") {
  for (std::int32_t const rows : {1, 30})
    for (std::int32_t const winner :
         {20, 100, 560}) {  // in the same tile, the next, the next split
      attention_case const c{"", {600}, {rows}, 1, 1, 64, 8};
      problem32 problem(c);
      problem.queries().assign(problem.queries().size(), 20.0f);
      problem.write_v(0, 0, 10, std::vector<float>(8, INFINITY));
      problem.write_k(0, 0, winner, std::vector<float>(64, 10.0f));
      std::vector<float> value(8);
      problem.view().load_v(0, 0, winner, value.data());
      support::for_each_kernel([&](auto const& kernel) {
        attention_call<float> call(problem);
        REQUIRE(call.forward(kernel, problem.view()).ok());
        for (std::size_t i = 0; i < call.out.size(); i += 8)
          CHECK(std::equal(value.begin(), value.end(), &call.out[i]));
      });
    }
}
