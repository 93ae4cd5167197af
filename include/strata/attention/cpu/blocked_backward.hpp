// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// blocked_attention backward. With P = exp(score - lse) and D = sum(d_out * out):
//
//     dV += P d_out,   dS = P (d_out . V - D) slope,   dQ += dS K,   dK += dS Q
#pragma once

#include <cstdint>

#include <strata/attention/cpu/arena.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/products.hpp>
#include <strata/attention/cpu/rotation.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/attention/cpu/tile.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

template <class T, class View>
class backward_pass {
 public:
  backward_pass(query_rows<T> const& q, View const& view, T const* d_out, T* d_q,
                kv_grad<T> const& grad, T* scratch) noexcept
      : backward_pass(q, view, d_out, d_q, grad, arena<T>(scratch)) {}

  /// Elements of scratch.
  static std::int64_t size(View const& view) noexcept {
    std::int64_t const k = stride_of<T>(view.k_dim), w = stride_of<T>(view.v_dim);
    auto const elements = score_tile<T, View>::size(view, backward_rows) +
                          (2 * k + w + view.v_dim) * backward_rows +
                          2 * std::int64_t{tile_keys} * backward_rows + sums_size(view);
    return ceil_divide<std::int64_t>(elements, 16) * 16;
  }

  /// All of one (sequence, KV head). No other call may write its dk and dv.
  void run(std::int32_t seq, std::int32_t kv_head) noexcept {
    auto const length = view_.length(seq, kv_head);
    for (std::int32_t t = 0; t < length && grad_.dk != nullptr && !grad_.add_k; ++t)
      for (std::int32_t i = 0; i < view_.k_dim; ++i) dk_at(seq, kv_head, t)[i] = 0;
    for (std::int32_t t = 0; t < length && grad_.dv != nullptr && !grad_.add_v; ++t)
      for (std::int32_t i = 0; i < view_.v_dim; ++i) dv_at(seq, kv_head, t)[i] = 0;
    for_each_tile(q_, view_, seq, kv_head, backward_rows, [&](row_tile const& tile) { run(tile); });
  }

 private:
  using v = lanes<T>;
  using vec = typename v::vec;

  backward_pass(query_rows<T> const& q, View const& view, T const* d_out, T* d_q,
                kv_grad<T> const& grad, arena<T> memory) noexcept
      : q_(q),
        view_(view),
        d_out_(d_out),
        d_q_(d_q),
        grad_(grad),
        tile_(q, view, backward_rows, memory),
        k_stride_(tile_.decoded().k_stride()),
        v_stride_(tile_.decoded().v_stride()),
        q_rows_(memory.zeros(backward_rows * k_stride_)),
        d_q_rows_(memory.zeros(backward_rows * k_stride_)),
        d_out_rows_(memory.zeros(backward_rows * v_stride_)),
        d_out_columns_(memory.take(std::int64_t{backward_rows} * view.v_dim)),
        weights_(memory.take(tile_keys * backward_rows)),
        d_scores_(memory.take(tile_keys * backward_rows)),
        sums_(memory.take(sums_size(view))) {}

  static std::int64_t sums_size(View const& view) noexcept {
    auto const row = std::int64_t{stride_of<T>(larger(view.k_dim, view.v_dim))};
    return larger(tile_keys * row, std::int64_t{backward_rows} * view.v_dim);
  }

  void run(row_tile const& tile) noexcept {
    load_rows(tile);
    for (auto t = tile.first_key; t < tile.last_key; t += smaller(tile_keys, tile.last_key - t))
      read_keys(t, smaller(tile_keys, tile.last_key - t));
    for (std::int32_t i = 0; i < tile.count; ++i) {
      T* const row = d_q_rows_ + i * k_stride_;
      if constexpr (score_tile<T, View>::k_stored::rotated) rotate_row(row, view_.k_dim);  // back
      copy(row, view_.k_dim, d_q_ + tile_.at(i) * view_.k_dim);
    }
  }

  void load_rows(row_tile const& tile) noexcept {
    tile_.begin(tile);
    tile_.transpose(d_out_, view_.v_dim, d_out_columns_);
    for (std::int32_t i = 0; i < backward_rows * k_stride_; ++i) d_q_rows_[i] = 0;
    for (std::int32_t i = 0; i < tile.count; ++i) {
      auto const at = tile_.at(i);
      copy(q_.q + at * view_.k_dim, view_.k_dim, q_rows_ + i * k_stride_);
      copy(d_out_ + at * view_.v_dim, view_.v_dim, d_out_rows_ + i * v_stride_);
      lse_[i] = q_.lse[at] == minus_infinity<T> ? T{0} : q_.lse[at];
    }
    total();
    rows_finite_ = all_finite(q_rows_, tile.count * k_stride_) &&
                   all_finite(d_out_rows_, tile.count * v_stride_);
  }

  /// D of every pair: the same chain of multiply_add over ascending elements as d_out . V, so that
  /// both round alike. Where a pair sees a single key the two cancel exactly.
  void total() noexcept {
    tile_.transpose(q_.out, view_.v_dim, sums_);  // of no other use yet
    for (std::int32_t j = 0; j < tile_.columns(); j += v::count) {
      auto const strip = std::int64_t{j / strip_pairs * strip_pairs} * view_.v_dim;
      auto const at = strip + j % strip_pairs;
      vec sum = v::all(0);
      for (std::int32_t i = 0; i < view_.v_dim; ++i)
        sum = v::multiply_add(v::load(d_out_columns_ + at + i * strip_pairs),
                              v::load(sums_ + at + i * strip_pairs), sum);
      v::store(totals_ + j, sum);
    }
  }

  void read_keys(std::int32_t first, std::int32_t count) noexcept {
    auto const rows = tile_.tile().count, k_dim = view_.k_dim, v_dim = view_.v_dim;
    tile_.load(first, count);
    auto const& keys = tile_.decoded();
    for (std::int32_t j = 0; j < tile_.columns(); j += strip_pairs) {
      tile_.score(j, weights_ + j, backward_rows);
      tile_.multiply_seen(keys.values(), v_stride_, v_dim, d_out_columns_, j, d_scores_ + j,
                          backward_rows);
    }
    differentiate(count);
    extent pairs[ceil_divide(tile_keys, multiply_rows)];
    tile_.seen().pairs(count, pairs);
    bool const finite = rows_finite_ && keys.keys_finite(count) && keys.values_finite(count);
    auto const product = [&](auto m, auto n, auto depth, extent const* parts, matrix<T> a,
                             T const* b, T* c, std::int64_t stride, auto kept) {
      if (finite)
        multiply_parts(m, n, parts, a, b, stride, c, stride, kept);
      else
        multiply_nonzero(m, n, depth, a, b, stride, c, stride, kept);
    };
    product(rows, k_dim, count, tile_.seen().keys(), {d_scores_, 1, backward_rows}, keys.keys(),
            d_q_rows_, k_stride_, kept_rows<T>{});
    if (grad_.dk != nullptr) {
      product(count, k_dim, rows, pairs, {d_scores_, backward_rows, 1}, q_rows_, sums_, k_stride_,
              overwritten<T>{});
      for (std::int32_t i = 0; i < count; ++i)
        add(sums_ + i * k_stride_, k_dim, dk_at(tile_.tile().seq, tile_.tile().kv_head, first + i));
    }
    if (grad_.dv != nullptr) {
      product(count, v_dim, rows, pairs, {weights_, backward_rows, 1}, d_out_rows_, sums_,
              v_stride_, overwritten<T>{});
      for (std::int32_t i = 0; i < count; ++i)
        add(sums_ + i * v_stride_, v_dim, dv_at(tile_.tile().seq, tile_.tile().kv_head, first + i));
    }
  }

  /// Scores become P, and d_scores, so far d_out . V, become dS.
  void differentiate(std::int32_t count) noexcept {
    for (std::int32_t j = 0; j < tile_.columns(); j += v::count) {
      auto const keys = tile_.seen().keys(j, v::count);
      tile_.clear_unseen(j, count, weights_ + j, backward_rows);
      tile_.clear_unseen(j, count, d_scores_ + j, backward_rows);
      for (auto i = keys.first; i < keys.last; ++i) differentiate(i, j);
    }
  }
  void differentiate(std::int32_t key, std::int32_t j) noexcept {
    auto const& rule = tile_.rule();
    T* const score_at = weights_ + key * backward_rows + j;
    T* const d_at = d_scores_ + key * backward_rows + j;
    vec const score = in_register(v::load(score_at) * tile_.scale());
    // A masked key of a row whose lse is NaN is masked all the same.
    vec const weight =
        score == minus_infinity<T> ? v::all(0) : exponential(score - v::load(lse_ + j));
    vec slope = v::all(rule.scale);
    if (rule.softcap > 0) slope *= 1 - score / rule.softcap * (score / rule.softcap);
    vec const d = weight * (v::load(d_at) - v::load(totals_ + j)) * slope;
    v::store(score_at, weight);
    v::store(d_at, weight == 0 ? v::all(0) : d);
  }

  static void copy(T const* STRATA_RESTRICT from, std::int32_t n, T* STRATA_RESTRICT to) noexcept {
    for (std::int32_t i = 0; i < n; ++i) to[i] = from[i];
  }
  static void add(T const* STRATA_RESTRICT from, std::int32_t n, T* STRATA_RESTRICT to) noexcept {
    for (std::int32_t i = 0; i < n; ++i) to[i] += from[i];
  }
  T* dk_at(std::int32_t seq, std::int32_t head, std::int32_t token) const noexcept {
    auto const& stride = grad_.dk_stride;
    return grad_.dk + seq * stride.seq + token * stride.token + head * stride.head;
  }
  T* dv_at(std::int32_t seq, std::int32_t head, std::int32_t token) const noexcept {
    auto const& stride = grad_.dv_stride;
    return grad_.dv + seq * stride.seq + token * stride.token + head * stride.head;
  }

  query_rows<T> const& q_;
  View const& view_;
  T const* d_out_;  // [rows, q_heads, v_dim]
  T* d_q_;          // [rows, q_heads, k_dim]
  kv_grad<T> const& grad_;
  score_tile<T, View> tile_;
  std::int64_t k_stride_, v_stride_;
  T* q_rows_;         // [backward_rows][k_stride]
  T* d_q_rows_;       // [backward_rows][k_stride]
  T* d_out_rows_;     // [backward_rows][v_stride]
  T* d_out_columns_;  // [strip][v_dim][strip_pairs]
  T* weights_;        // [tile_keys][backward_rows], scores before
  T* d_scores_;       // [tile_keys][backward_rows]
  T* sums_;  // [tile_keys][k_stride or v_stride], of dK, then of dV; O before as d_out_columns
  T lse_[backward_rows] = {}, totals_[backward_rows] = {};
  bool rows_finite_ = true;
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
