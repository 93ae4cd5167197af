// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Backward by matrix products and by multiply-adds, run thread by thread on the host: against the
// reference in double, on the same 16-bit numbers.
//
// Bounds, u being the roundoff of T. What is rounded to T is P and dS / scale before the last
// products, dQ, and the output, which moves D by u sum |d_out out|. Scores are sums of floats, so
// weights are off by e, some 2^-21 of the greatest score. To first order then
//
//     dV  sum P |d_out| (u + e)
//     dS  |dS| (u + e) + P slope u sum |d_out out| + e (what it is the difference of)
//     dK  sum of dS's |Q|,  dQ  sum of dS's |K| and u |dQ|
//
// and float16 adds its least subnormal number, 2^-25 as an error, to P and dS / scale.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/codec.hpp>

#include "support/attention_grid.hpp"
#include "support/device_checks.hpp"
#include "support/kernel_checks.hpp"
#include "support/sanitized.hpp"
#include "support/share_executor.hpp"
#include "support/simt_attention.hpp"
#include "support/simt_kernels.hpp"

namespace {

using strata::bf16_codec;
using strata::bfloat16;
using strata::f16_codec;
using strata::f32_codec;
using strata::float16;
using support::attention_call;
using support::attention_case;
using support::attention_problem;
using support::existing;
using support::narrowed;
using support::roundoff;
using support::same_bits;
using support::simt_launch;
using support::widened;

/// A kernel whose launches are these. Dims: none for plain multiply-adds.
template <std::int32_t... Dims>
auto kernel_of(simt_launch const& launch, bool deterministic = true) {
  auto kernel = support::simt_attention<Dims...>();
  kernel.launcher.order = launch.order;
  kernel.launcher.copies = launch.copies;
  kernel.launcher.blocks_instead = launch.blocks;
  kernel.deterministic = deterministic;
  return kernel;
}

/// The gradients of a problem by kernels for T, from the output and lse of the reference, rounded.
template <class T>
class gradients {
 public:
  template <class Problem>
  explicit gradients(Problem& problem) : call(problem) {}

  template <class Kernel, class View>
  void run(Kernel const& kernel, View const& view, attention_call<double> const& exact) {
    auto const as_t = [](auto const& x) {
      return narrowed<T>(std::vector<float>(x.begin(), x.end()));
    };
    auto const q = as_t(call.q), d_out = as_t(call.d_out);
    auto out = as_t(exact.out);
    std::vector<T> d_q(q.size());
    std::vector<float> lse(exact.lse.begin(), exact.lse.end());
    strata::query_rows<T> rows;
    rows.q = q.data();
    rows.out = out.data();
    rows.lse = lse.data();
    rows.offsets = call.rows.offsets;
    rows.positions = call.rows.positions;
    rows.rows_per_seq = call.rows.rows_per_seq;
    rows.num_seqs = call.rows.num_seqs;
    rows.q_heads = call.rows.q_heads;
    rows.key_begin = call.rows.key_begin;
    rows.key_end = call.rows.key_end;
    rows.rule = call.rows.rule;
    auto const bytes = kernel.backward_workspace_bytes(rows, view, 1);
    T const* const gradient = d_out.data();
    support::share_executor here;
    auto const done = strata::attend_backward(here, kernel, rows, view, gradient, d_q.data(),
                                              call.grad, memory_.get(bytes));
    CAPTURE(done);
    REQUIRE(done.ok());
    call.d_q = widened(d_q);
  }

  attention_call<float> call;

 private:
  support::workspace_memory memory_;
};

/// Errors that the gradients may have, element by element, by the formulas above.
template <class T>
class gradient_bounds {
 public:
  template <class Problem>
  gradient_bounds(Problem& problem, attention_call<double> const& exact)
      : d_q(exact.d_q.size()), dk(exact.dk.size()), dv(exact.dv.size()) {
    auto const view = problem.view();
    for (std::int32_t s = 0; s < exact.rows.num_seqs; ++s)
      for (auto row = exact.rows.row_begin(s); row < exact.rows.row_end(s); ++row)
        for (std::int32_t h = 0; h < exact.rows.q_heads; ++h) add(view, exact, s, row, h);
  }

  std::vector<double> d_q, dk, dv;

 private:
  static constexpr double u = roundoff<T>, tiny = std::is_same_v<T, float16> ? 0x1p-25 : 0;

  template <class View>
  void add(View const& view, attention_call<double> const& exact, std::int32_t s, std::int32_t r,
           std::int32_t h) {
    auto const& q = exact.rows;
    auto const dim = view.k_dim, wide = view.v_dim;
    std::vector<double> scratch(support::as_size(dim + wide));
    strata::detail::reference_row<double, View> row(q, view, s, r, h, scratch.data());
    auto const at = std::int64_t{r} * q.q_heads + h;
    auto const* const d_out = exact.d_out.data() + at * wide;
    double total = 0, total_size = 0;
    for (std::int32_t i = 0; i < wide; ++i) {
      total += d_out[i] * q.out[at * wide + i];
      total_size += std::abs(d_out[i] * q.out[at * wide + i]);
    }
    for (std::int32_t i = 0; i < dim; ++i)
      d_q[support::as_size(at * dim + i)] +=
          u * std::abs(exact.d_q[support::as_size(at * dim + i)]);
    for (auto t = row.keys().begin; t < row.keys().end; ++t) {
      if (!row.sees(t)) continue;
      auto const score = row.score(t), p = std::exp(score - q.lse[at]);
      auto const* const value = row.load_value(t);
      double d_weight = 0, size = total_size;
      for (std::int32_t i = 0; i < wide; ++i) {
        d_weight += d_out[i] * value[i];
        size += std::abs(d_out[i] * value[i]);
      }
      // The dot product's own size: what its sum, and so the score, is off by a part of.
      double dot_size = std::abs(score) + std::abs(q.lse[at]) + q.rule.softcap;
      for (std::int32_t i = 0; i < dim; ++i)
        dot_size += std::abs(q.q[at * dim + i] * row.key()[i]) * row.rule().scale;
      auto const e = 0x1p-21 * (1 + dot_size), slope = row.rule().slope(score);
      auto const p_error = p * (u + e) + tiny;
      auto const d_error = std::abs(p * (d_weight - total) * slope) * (u + e) +
                           p * slope * u * total_size + p * row.rule().scale * e * size +
                           tiny * row.rule().scale;
      auto const head = row.kv_head();
      auto const k_at = exact.grad.dk_stride, v_at = exact.grad.dv_stride;
      for (std::int32_t i = 0; i < dim; ++i) {
        d_q[support::as_size(at * dim + i)] += d_error * std::abs(row.key()[i]);
        dk[support::as_size(s * k_at.seq + t * k_at.token + head * k_at.head + i)] +=
            d_error * std::abs(q.q[at * dim + i]);
      }
      for (std::int32_t i = 0; i < wide; ++i)
        dv[support::as_size(s * v_at.seq + t * v_at.token + head * v_at.head + i)] +=
            p_error * std::abs(d_out[i]);
    }
  }
};

/// The greatest error of all elements, each over its bound and half a unit of a float.
double excess_over_bounds(std::vector<float> const& got, std::vector<double> const& exact,
                          std::vector<double> const& bounds) {
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    auto const error = std::abs(static_cast<double>(got[i]) - exact[i]);
    if (static_cast<double>(got[i]) == exact[i] || (std::isnan(got[i]) && std::isnan(exact[i])))
      continue;
    auto const bound = bounds[i] + 0x1p-22 * (1 + std::abs(exact[i]));
    worst = std::max(
        worst, std::isfinite(error) ? error / bound : std::numeric_limits<double>::infinity());
  }
  return worst;
}

/// Numbers that T holds, all of them.
template <class T, class Problem>
void round_problem(Problem& problem) {
  support::round_queries<T>(problem);
  problem.d_out() = widened(narrowed<T>(problem.d_out()));
}

/// By how many times the greatest error of the gradients exceeds its bound.
template <class T, class Kernel, class Problem>
double gradient_excess(Kernel const& kernel, Problem& problem) {
  round_problem<T>(problem);
  auto const view = problem.view();
  attention_call<double> exact(problem);
  REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
  REQUIRE(exact.backward(strata::reference_attention{}, view).ok());
  gradients<T> got(problem);
  got.run(support::bounded(kernel, problem), view, exact);
  support::check_nothing_beyond(got.call, view, problem.max_length());
  gradient_bounds<T> const bounds(problem, exact);
  return std::max({excess_over_bounds(got.call.d_q, exact.d_q, bounds.d_q),
                   excess_over_bounds(got.call.dk, exact.dk, bounds.dk),
                   excess_over_bounds(got.call.dv, exact.dv, bounds.dv)});
}

template <class T, class Codec, std::int32_t... Dims>
void check_gradient_grid(std::uint64_t seed, std::int64_t most_work, bool deterministic = true) {
  double worst = 0;
  std::int32_t number = 0;
  for (auto const& levels : support::attention_design(seed, most_work)) {
    auto const i = number++;
    if (i % support::case_step() != 0) continue;
    auto c = support::grid::case_of(levels);
    ((c.k_dim = c.v_dim = Dims), ...);
    c.name = support::grid::spell(c);
    CAPTURE(c.name);
    attention_problem<Codec> problem(c);
    auto const kernel = kernel_of<Dims...>(simt_launch::of(i), deterministic);
    auto const e = gradient_excess<T>(kernel, problem);
    CHECK(e <= 1);
    worst = std::max(worst, e);
  }
  MESSAGE(number << " cases, at most " << worst << " of the bound");
}

/// Many rows and keys, of which tiles see all, some, or none.
std::vector<attention_case> long_gradient_cases() {
  std::vector<attention_case> cases = {
      {"full", {300}, {300}, 2, 1, 64, 64},
      {"chunks", {290, 33, 129, 0}, {130, 33, 129, 5}, 4, 2, 64, 64},
  };
  auto windowed = cases.back();
  windowed.name = "window";
  windowed.rule.window = 70;
  cases.push_back(windowed);
  auto any_order = cases.back();
  any_order.name = "any order";
  any_order.any_order = any_order.gaps = any_order.sinks = any_order.add_k = true;
  any_order.rule.softcap = 3;
  any_order.layout = {16, 5};
  cases.push_back(any_order);
  return cases;
}

}  // namespace

TEST_CASE("backward: bfloat16, head_dim 64") {
  check_gradient_grid<bfloat16, bf16_codec, 64>(1, 60000);
}
TEST_CASE("backward: float16, head_dim 128") {
  check_gradient_grid<float16, f16_codec, 128>(2, 60000);
}
TEST_CASE("backward: float, heads of any size") { check_gradient_grid<float, f32_codec>(3, 15000); }
TEST_CASE("backward: bfloat16, head_dim 128, dQ added up") {
  check_gradient_grid<bfloat16, bf16_codec, 128>(4, 60000, false);
}
TEST_CASE("backward: float16, head_dim 64, dQ added up") {
  check_gradient_grid<float16, f16_codec, 64>(5, 60000, false);
}

TEST_CASE("backward: many rows") {
  std::int32_t number = 0;
  for (auto const& c : long_gradient_cases())
    for (bool const deterministic : {true, false}) {
      CAPTURE(c.name);
      attention_problem<bf16_codec> problem(c);
      auto const launch = simt_launch::of(number++);
      if (number != 3 && support::case_step() > 1) continue;  // of 8
      auto const kernel = kernel_of<64>({2, launch.order, launch.copies}, deterministic);
      CHECK(gradient_excess<bfloat16>(kernel, problem) <= 1);
    }
}

TEST_CASE("backward: heads of other sizes") {
  // What blocks add to sums of dQ where bits may differ, on a device with so much shared memory.
  auto const added = []<std::int32_t Dim>(std::integral_constant<std::int32_t, Dim>,
                                          std::int32_t shared_bytes) {
    attention_problem<bf16_codec> problem({"", {150}, {70}, 4, 2, Dim, Dim});
    simt::traffic moved;
    auto kernel = kernel_of<Dim>({2, simt::order::descending, simt::arrival::at_once}, false);
    kernel.launcher.most_shared = kernel.shared_bytes = shared_bytes;
    kernel.launcher.moved = &moved;
    CHECK(gradient_excess<bfloat16>(kernel, problem) <= 1);
    return moved.added_bytes;
  };
  std::integral_constant<std::int32_t, 192> const large;
  std::integral_constant<std::int32_t, 96> const odd;
  // A warp has several parts of dQ. Tiles of 32 pairs: 5 for each KV head, met by tokens of two
  // blocks, the last two of them.
  CHECK(added(large, 227 << 10) == 2 * (5 + 2) * 32 * 192 * 4);
  if (support::case_step() > 1) return;
  CHECK(added(large, 163 << 10) == 0);  // no room for dS beside K and V
  CHECK(added(odd, 227 << 10) == 0);    // plain multiply-adds
}

TEST_CASE("backward: the same bits whatever the launch") {
  for (auto const& c : long_gradient_cases()) {
    CAPTURE(c.name);
    if (!c.any_order && support::case_step() > 1) continue;  // the richest alone
    attention_problem<bf16_codec> problem(c);
    round_problem<bfloat16>(problem);
    auto const view = problem.view();
    attention_call<double> exact(problem);
    REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
    gradients<bfloat16> first(problem);
    first.run(support::bounded(kernel_of<64>({1}), problem), view, exact);
    for (auto const& launch : support::sampled<simt_launch>(
             {{4, simt::order::descending, simt::arrival::at_once}, {50, simt::order::shuffled}},
             1))
      for (bool const deterministic : support::sampled<bool>({true, false})) {
        gradients<bfloat16> again(problem);
        again.run(support::bounded(kernel_of<64>(launch, deterministic), problem), view, exact);
        CHECK((same_bits(again.call.d_q, first.call.d_q) || !deterministic));
        CHECK(same_bits(again.call.dk, first.call.dk));
        CHECK(same_bits(again.call.dv, first.call.dv));
      }
  }
}

TEST_CASE("backward: who adds dQ up, and in how much memory") {
  attention_problem<bf16_codec> problem({"", {70, 40}, {70, 9}, 4, 2, 64, 64});
  round_problem<bfloat16>(problem);
  auto const view = problem.view();
  attention_call<double> exact(problem);
  REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
  auto const added = [&](bool deterministic, bool wants_k, bool wants_v) {
    simt::traffic moved;
    auto kernel = support::bounded(kernel_of<64>({2}, deterministic), problem);
    kernel.launcher.moved = &moved;
    gradients<bfloat16> call(problem);
    if (!wants_k) call.call.grad.dk = nullptr;
    if (!wants_v) call.call.grad.dv = nullptr;
    call.run(kernel, view, exact);
    return moved.added_bytes;
  };
  CHECK(added(true, true, true) == 0);
  CHECK(added(false, false, false) == 0);
  // Of each KV head: tiles of 32 pairs, each met by one block of tokens.
  std::int64_t const tiles = 2 * (5 + 1);
  for (bool const both : {true, false}) {
    CHECK(added(false, true, both) == tiles * 32 * 64 * 4);
    CHECK(added(false, both, true) == tiles * 32 * 64 * 4);
  }
  strata::query_rows<bfloat16> rows;
  rows.num_seqs = 3, rows.rows_per_seq = 100, rows.q_heads = 4;
  auto sums = kernel_of<64>({2}, false), none = kernel_of<64>({2});
  auto const more =
      sums.backward_workspace_bytes(rows, view, 1) - none.backward_workspace_bytes(rows, view, 1);
  CHECK(more == 2 * (300 * 2 / 32 + 3) * 32 * 64 * 4);
  CHECK(kernel_of<128>({2}, false).backward_workspace_bytes(rows, view, 1) ==
        none.backward_workspace_bytes(rows, view, 1));
}

TEST_CASE("backward: gradients that nobody wants") {
  attention_problem<bf16_codec> problem({"", {70, 40}, {70, 9}, 4, 2, 64, 64});
  round_problem<bfloat16>(problem);
  auto const view = problem.view();
  attention_call<double> exact(problem);
  REQUIRE(exact.forward(strata::reference_attention{}, view).ok());
  for (bool const deterministic : {true, false}) {
    auto const kernel = support::bounded(kernel_of<64>({2}, deterministic), problem);
    gradients<bfloat16> all(problem), keys(problem), values(problem);
    keys.call.grad.dv = nullptr;
    values.call.grad.dk = nullptr;
    for (auto* const call : {&all, &keys, &values}) call->run(kernel, view, exact);
    CHECK(same_bits(keys.call.dk, all.call.dk));
    CHECK(same_bits(values.call.dv, all.call.dv));
    for (auto const x : keys.call.dv) CHECK(std::isnan(x));
    for (auto const x : values.call.dk) CHECK(std::isnan(x));
  }
}

TEST_CASE_TEMPLATE("backward: what is not finite counts where it is seen, and nowhere else", T,
                   bfloat16, float16) {
  attention_problem<strata::plain_codec<T>> problem({"", {90, 40}, {60, 9}, 4, 2, 64, 64});
  constexpr auto infinity = std::numeric_limits<float>::infinity();
  std::vector<float> infinite(64, 0.5f);
  infinite[3] = infinity, infinite[60] = -infinity;
  problem.write_v(0, 0, 77, infinite);
  problem.write_k(0, 1, 80, infinite);
  problem.write_v(1, 1, 38, std::vector<float>(64, std::nanf("")));
  for (bool const deterministic : support::sampled<bool>({true, false}))
    CHECK(gradient_excess<T>(kernel_of<64>({2}, deterministic), problem) <= 1);
}
