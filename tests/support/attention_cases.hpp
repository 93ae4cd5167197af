// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention calls to hold kernels against each other: what a case is, its cache in every layout,
// and the calls. All memory that a kernel has no business with is NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <strata/attention/kernel.hpp>
#include <strata/cache/view.hpp>

#include "cache_tensor.hpp"
#include "exact_numbers.hpp"
#include "share_executor.hpp"

namespace support {

/// Sequences of a batch and the queries on them.
struct attention_case {
  std::string name;
  std::vector<std::int32_t> lengths;  ///< [num_seqs], tokens in the cache
  std::vector<std::int32_t> rows;     ///< [num_seqs], queries: of the last tokens
  std::int32_t q_heads = 2, kv_heads = 2, k_dim = 32, v_dim = 32;
  strata::score_rule rule = {};   ///< without sinks
  bool sinks = false;             ///< a logit for every query head
  bool gaps = false;              ///< positions ascend by 1 to 4
  bool lengths_per_head = false;  ///< KV head h has lost its first 5 h tokens
  cache_layout layout = {};
  double query_scale = 2;      ///< large: the softmax has few winners
  std::int32_t ahead = 0;      ///< tokens in the cache behind the last query's own
  bool any_order = false;      ///< queries of any tokens instead, as those of a tree of drafts
  bool no_positions = false;   ///< of queries: they stand where the keys end
  bool no_offsets = false;     ///< every sequence has as many rows as the first
  std::int64_t key_begin = 0;  ///< a part of the keys
  std::int64_t key_end = strata::all_keys;
  bool add_k = false, add_v = false;  ///< gradients start as numbers, which are added to
};

/// Calls body(sequence, KV head, token) for every token that exists.
template <class View, class Body>
void for_each_token(View const& view, Body&& body) {
  for (std::int32_t s = 0; s < view.rows.num_seqs; ++s)
    for (std::int32_t h = 0; h < view.kv_heads; ++h)
      for (std::int32_t t = 0; t < view.length(s, h); ++t) body(s, h, t);
}

/// A case with its numbers. Queries and gradients are floats, so that float and double kernels are
/// given the same.
template <class KCodec, class VCodec = KCodec>
class attention_problem {
 public:
  using view_type = strata::kv_view<KCodec, VCodec>;

  explicit attention_problem(attention_case const& c, std::uint64_t seed = 1)
      : case_(c), max_length_(*std::max_element(c.lengths.begin(), c.lengths.end())) {
    lay_out_positions(seed);
    k_.build(c.layout, c.layout.k_block, num_seqs(), max_length_, c.kv_heads, c.k_dim, seed + 1);
    v_.build(c.layout, c.layout.v_block, num_seqs(), max_length_, c.kv_heads, c.v_dim, seed + 2);
    for_each_token(view(), [&](std::int32_t s, std::int32_t h, std::int32_t t) {
      auto const number = as_size((s * c.kv_heads + h) * 100003 + t);
      write_k(s, h, t, random_values<float>(c.k_dim, (seed + 1) * 1000003 + number));
      write_v(s, h, t, random_values<float>(c.v_dim, (seed + 2) * 1000003 + number));
    });
    auto const count = std::int64_t{offsets_.back()} * c.q_heads;
    queries_ = random_values<float>(count * c.k_dim, seed + 3, c.query_scale);
    d_out_ = random_values<float>(count * c.v_dim, seed + 4);
    if (c.sinks) sinks_ = random_values<float>(c.q_heads, seed + 5, 2);
  }
  attention_problem(attention_problem const&) = delete;  // the blocks point into it
  attention_problem& operator=(attention_problem const&) = delete;

  attention_case const& shape() const { return case_; }
  std::int32_t num_seqs() const { return static_cast<std::int32_t>(case_.lengths.size()); }
  std::int32_t max_length() const { return max_length_; }
  std::vector<std::int32_t> const& offsets() const { return offsets_; }
  std::vector<std::int32_t> const& query_positions() const { return query_positions_; }
  // To be changed by tests.
  std::vector<float>& sinks() { return sinks_; }      // [q_heads] or empty
  std::vector<float>& queries() { return queries_; }  // [rows, q_heads, k_dim]
  std::vector<float>& d_out() { return d_out_; }      // [rows, q_heads, v_dim]
  template <class T>
  void write_k(std::int32_t s, std::int32_t h, std::int32_t t, std::vector<T> const& x) {
    k_.write(s, h, t, x);
  }
  template <class T>
  void write_v(std::int32_t s, std::int32_t h, std::int32_t t, std::vector<T> const& x) {
    v_.write(s, h, t, x);
  }

  view_type view() const {
    view_type view;
    view.k = k_.at;
    view.v = v_.at;
    view.rows.num_seqs = num_seqs();
    view.rows.lengths = lengths_.data();
    view.rows.length_per_head = case_.lengths_per_head;
    if (case_.gaps || case_.lengths_per_head) {
      view.rows.positions = positions_.data();
      view.rows.position_seq_stride = std::int64_t{case_.kv_heads} * max_length_;
      view.rows.position_head_stride = max_length_;
    }
    view.kv_heads = case_.kv_heads;
    view.k_dim = case_.k_dim;
    view.v_dim = case_.v_dim;
    return view;
  }

 private:
  void lay_out_positions(std::uint64_t seed) {
    auto const& c = case_;
    number_stream stream(seed);
    offsets_.push_back(0);
    for (std::size_t s = 0; s < c.lengths.size(); ++s) {
      std::vector<std::int32_t> whole;  // [length], of the sequence before any head loses tokens
      for (std::int32_t t = 0; t < c.lengths[s]; ++t)
        whole.push_back(t == 0 ? 0 : whole.back() + (c.gaps ? 1 + stream.below(4) : 1));
      for (std::int32_t h = 0; h < c.kv_heads; ++h) {
        auto const lost = c.lengths_per_head ? std::min(5 * h, c.lengths[s]) : 0;
        if (c.lengths_per_head || h == 0) lengths_.push_back(c.lengths[s] - lost);
        for (std::int32_t t = 0; t < max_length_; ++t)
          positions_.push_back(t + lost < c.lengths[s] ? whole[as_size(t + lost)] : 1 << 30);
      }
      for (std::int32_t i = 0; i < c.rows[s]; ++i) {
        auto const token = c.any_order ? stream.below(c.lengths[s] + 1) - 1
                                       : c.lengths[s] - c.ahead - c.rows[s] + i;
        query_positions_.push_back(token < 0 ? token : whole[as_size(token)]);
      }
      offsets_.push_back(offsets_.back() + c.rows[s]);
    }
  }

  attention_case case_;
  std::int32_t max_length_;
  std::vector<std::int32_t> lengths_, positions_, offsets_, query_positions_;
  cache_tensor<KCodec> k_;
  cache_tensor<VCodec> v_;
  std::vector<float> queries_, d_out_, sinks_;
};

/// One call on a problem, forward and backward, with its memory.
template <class T>
class attention_call {
 public:
  template <class Problem>
  explicit attention_call(Problem& problem)
      : attention_call(problem, problem.shape().key_begin, problem.shape().key_end) {}
  template <class Problem>
  attention_call(Problem& problem, std::int64_t key_begin, std::int64_t key_end)
      : q(problem.queries().begin(), problem.queries().end()),
        d_out(problem.d_out().begin(), problem.d_out().end()),
        out(d_out.size(), nan),
        lse(d_out.size() / as_size(problem.shape().v_dim), nan),
        d_q(q.size(), nan) {
    auto const& c = problem.shape();
    auto const tokens = as_size(problem.num_seqs()) * as_size(problem.max_length());
    dk.assign(tokens * as_size(c.kv_heads * c.k_dim), nan);
    dv.assign(tokens * as_size(c.kv_heads * c.v_dim), nan);
    rows.q = q.data();
    rows.out = out.data();
    rows.lse = lse.data();
    if (c.no_offsets)
      rows.rows_per_seq = c.rows.front();
    else
      rows.offsets = problem.offsets().data();
    if (!c.no_positions) rows.positions = problem.query_positions().data();
    rows.num_seqs = problem.num_seqs();
    rows.q_heads = c.q_heads;
    rows.key_begin = key_begin;
    rows.key_end = key_end;
    rows.rule = c.rule;
    if (c.sinks) rows.rule.sink_logits = problem.sinks().data();
    grad = strata::kv_grad<T>::dense(dk.data(), dv.data(), problem.max_length(), c.kv_heads,
                                     c.k_dim, c.v_dim);
    grad.add_k = c.add_k;
    grad.add_v = c.add_v;
    if (c.add_k) start(dk, grad.dk_stride, c.k_dim, problem);
    if (c.add_v) start(dv, grad.dv_stride, c.v_dim, problem);
  }
  attention_call(attention_call const&) = delete;
  attention_call& operator=(attention_call const&) = delete;

  template <class Kernel, class View, class Exec = share_executor>
  strata::status forward(Kernel const& kernel, View const& view, Exec&& exec = {}) {
    return forward_on(kernel, view, executor_ref(exec));
  }
  /// Leaves NaN in dk and dv beyond each length.
  template <class Kernel, class View, class Exec = share_executor>
  strata::status backward(Kernel const& kernel, View const& view, Exec&& exec = {}) {
    return backward_on(kernel, view, executor_ref(exec));
  }
  // Not inline, so that tests may share an instance: kernels compile slowly.
  template <class Kernel, class View>
  strata::status forward_on(Kernel const& kernel, View const& view, executor_ref exec);
  template <class Kernel, class View>
  strata::status backward_on(Kernel const& kernel, View const& view, executor_ref exec);

  static constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> q, d_out, out, lse, d_q, dk, dv;
  strata::query_rows<T> rows;
  strata::kv_grad<T> grad;

 private:
  /// What stands in the gradient of every token that exists.
  template <class Problem>
  static void start(std::vector<T>& gradient, typename strata::kv_grad<T>::strides const& stride,
                    std::int32_t dim, Problem const& problem) {
    for_each_token(problem.view(), [&](std::int32_t s, std::int32_t h, std::int32_t t) {
      auto const at = s * stride.seq + h * stride.head + t * stride.token;
      auto const numbers = random_values<float>(dim, as_size(at) + 7);
      std::copy(numbers.begin(), numbers.end(), gradient.begin() + at);
    });
  }

  workspace_memory workspace_;
};

template <class T>
template <class Kernel, class View>
strata::status attention_call<T>::forward_on(Kernel const& kernel, View const& view,
                                             executor_ref exec) {
  auto const bytes = kernel.workspace_bytes(rows, view, exec.num_shares());
  return strata::attend(exec, kernel, rows, view, workspace_.get(bytes));
}

template <class T>
template <class Kernel, class View>
strata::status attention_call<T>::backward_on(Kernel const& kernel, View const& view,
                                              executor_ref exec) {
  auto const bytes = kernel.backward_workspace_bytes(rows, view, exec.num_shares());
  return strata::attend_backward(exec, kernel, rows, view, static_cast<T const*>(d_out.data()),
                                 d_q.data(), grad, workspace_.get(bytes));
}

/// What kernels are held to: every feature alone, those that meet in models together, and the edges
/// of tiles of 48 rows, 64 keys and splits of 512.
inline std::vector<attention_case> attention_cases() {
  using c = attention_case;
  auto const with = [](c base, auto&& change) {
    change(base);
    return base;
  };
  std::vector<c> cases = {
      {"ragged", {0, 1, 7, 63, 64, 65, 130}, {0, 1, 7, 63, 64, 65, 20}, 4, 2, 32, 32},
      {"no sequence has a query", {5, 0}, {0, 0}},
      {"more queries than tokens", {0, 2, 70}, {3, 4, 90}},
      {"decode across splits", {1, 64, 65, 512, 513, 1100}, {1, 1, 1, 1, 1, 1}, 4, 1, 64, 64},
      {"chunk", {300, 130}, {70, 49}, 4, 4, 16, 16},
      {"few winners", {100}, {100}, 2, 1, 64, 64, {}, false, false, false, {}, 60},
  };
  std::int32_t const dims[][2] = {{16, 16},   {20, 20}, {64, 64}, {80, 80},
                                  {128, 128}, {64, 24}, {20, 80}, {3, 5}};
  std::int32_t i = 0;
  for (auto const [k_dim, v_dim] : dims) {
    auto const group = 1 << i++ % 3;
    cases.push_back({"dims " + std::to_string(k_dim) + " " + std::to_string(v_dim) + " group " +
                         std::to_string(group),
                     {65, 40},
                     {65, 3},
                     2 * group,
                     2,
                     k_dim,
                     v_dim});
  }
  c const base{"", {90, 3, 130}, {90, 2, 30}, 4, 2, 16, 24};
  auto const add = [&](char const* name, auto&& change) {
    cases.push_back(with(base, change));
    cases.back().name = name;
  };
  add("not causal", [](c& x) { x.rule.causal = false; });
  add("scale", [](c& x) { x.rule.scale = 0.07; });
  add("window 1", [](c& x) { x.rule.window = 1; });
  add("window 70", [](c& x) { x.rule.window = 70; });
  add("window, not causal", [](c& x) { x.rule.window = 9, x.rule.causal = false; });
  add("softcap", [](c& x) { x.rule.softcap = 0.8; });
  add("sinks", [](c& x) { x.sinks = true; });
  add("sinks without keys", [](c& x) { x.sinks = true, x.lengths = {0, 2, 0}; });
  add("gaps", [](c& x) { x.gaps = true; });
  add("gaps, window", [](c& x) { x.gaps = true, x.rule.window = 40; });
  add("length per head", [](c& x) { x.lengths_per_head = true; });
  add("all at once", [](c& x) {
    x.gaps = x.lengths_per_head = x.sinks = true;
    x.rule = {0.3, 2.5, 77, true, nullptr};
    x.layout.row_per_head = true;
  });
  add("paged", [](c& x) { x.layout = {16, 16}; });
  add("paged, heads first, gaps", [](c& x) { x.layout = {8, 8, true}, x.gaps = true; });
  add("paged, other blocks for V", [](c& x) { x.layout = {16, 6}; });
  add("row per head", [](c& x) { x.layout.row_per_head = true; });
  return cases;
}

/// The greatest |x - y| of two calls' tensors, and the greatest |y|. Infinite where one is not a
/// number and the other is, or one is infinite and the other is not the same.
struct tensor_distance {
  double error = 0, magnitude = 0;

  template <class T, class U>
  tensor_distance(std::vector<T> const& x, std::vector<U> const& y) {
    if (x.size() != y.size()) error = INFINITY;
    for (std::size_t i = 0; i < x.size() && i < y.size(); ++i) {
      auto const a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
      if (std::isfinite(b)) magnitude = std::max(magnitude, std::abs(b));
      if (a == b || (std::isnan(a) && std::isnan(b))) continue;
      auto const difference = std::abs(a - b);
      error = std::isfinite(difference) ? std::max(error, difference) : INFINITY;
    }
  }
};

}  // namespace support
