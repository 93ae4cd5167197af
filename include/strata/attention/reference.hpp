// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The reference attention: the plain formula, one key at a time, softmax in two passes (maximum
// first, then sum). Slow on purpose; everything else is measured against it. In double it is the
// oracle, in float the naive computation whose error others may exceed twofold.
//
// Each row's sums run over its keys in ascending order whatever the batch, the chunk or the number
// of shares, so that a full pass, chunked prefill and token by token agree bit for bit (law 5).
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/kernel.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/element.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// One query head's pass over its keys.
template <class T, class View>
class reference_row {
 public:
  using A = accum_t<T>;

  /// scratch: [k_dim + v_dim]
  reference_row(query_rows<T> const& q, View const& view, std::int32_t seq, std::int32_t row,
                std::int32_t head, A* scratch) noexcept
      : view_(view),
        rule_(q.rule),
        scorer_(q.rule, view.k_dim),
        query_(q.q + (std::int64_t{row} * q.q_heads + head) * view.k_dim),
        seq_(seq),
        kv_head_(head / (q.q_heads / view.kv_heads)),
        keys_(keys_of(q, view, seq, kv_head_)),
        position_(q.position(seq, row, keys_.end_position)),
        key_(scratch),
        value_(scratch + view.k_dim) {}

  std::int32_t kv_head() const noexcept { return kv_head_; }
  key_range const& keys() const noexcept { return keys_; }
  A const* key() const noexcept { return key_; }      // of the token scored last
  A const* value() const noexcept { return value_; }  // of the token loaded last
  scorer<A> const& rule() const noexcept { return scorer_; }

  bool sees(std::int32_t token) const noexcept {
    return rule_.sees(position_, keys_.position(token));
  }
  A score(std::int32_t token) noexcept {
    view_.load_k(seq_, kv_head_, token, key_);
    A dot = 0;
    for (std::int32_t i = 0; i < view_.k_dim; ++i) dot += widen(query_[i]) * key_[i];
    return scorer_.score(dot);
  }
  A const* load_value(std::int32_t token) noexcept {
    view_.load_v(seq_, kv_head_, token, value_);
    return value_;
  }

 private:
  View const& view_;
  score_rule const& rule_;
  scorer<A> scorer_;
  T const* query_;  // [k_dim]
  std::int32_t seq_, kv_head_;
  key_range keys_;
  std::int32_t position_;
  A* key_;    // [k_dim]
  A* value_;  // [v_dim]
};

/// Maximum and sum over the visible scores, the sink included.
template <class T, class View>
softmax_state<accum_t<T>> reference_softmax(reference_row<T, View>& row,
                                            float const* sink) noexcept {
  using A = accum_t<T>;
  softmax_state<A> state;
  if (sink != nullptr) state.max = static_cast<A>(*sink);
  for (auto t = row.keys().begin; t < row.keys().end; ++t) {
    if (!row.sees(t)) continue;
    A const score = row.score(t);
    if (score > state.max || score != score) state.max = score;
  }
  if (sink != nullptr) state.sum = softmax_state<A>::decay(static_cast<A>(*sink), state.max);
  for (auto t = row.keys().begin; t < row.keys().end; ++t)
    if (row.sees(t)) state.sum += softmax_state<A>::decay(row.score(t), state.max);
  return state;
}

}  // namespace detail

/// Works with every codec and with queries of every type, in 16 bits as well: scores and sums are
/// kept in accum_t, and an output is rounded once. Backward is for float and double.
struct reference_attention {
  template <query_element T, class View>
  std::int64_t workspace_bytes(query_rows<T> const&, View const& view,
                               std::int32_t num_shares) const noexcept {
    return detail::larger(num_shares, 1) * scratch_bytes<T>(view) + workspace_slack;
  }
  template <std::floating_point T, class View>
  std::int64_t backward_workspace_bytes(query_rows<T> const& q, View const& view,
                                        std::int32_t num_shares) const noexcept {
    return workspace_bytes(q, view, num_shares);
  }

  template <query_element T, class View>
  status partial(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    if (auto const s = check_call(part, q, view, workspace); !s.ok()) return s;
    auto* const scratch = scratch_of<T>(part, view, workspace);
    auto const end = part.end(q.num_rows());
    std::int32_t seq = 0;
    for (auto row = part.begin(q.num_rows()); row < end; ++row) {
      while (row >= q.row_end(seq)) ++seq;
      for (std::int32_t h = 0; h < q.q_heads; ++h)
        forward_row(q, view, seq, static_cast<std::int32_t>(row), h, scratch);
    }
    return {};
  }

  template <query_element T, class View>
  status combine(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    return check_call(part, q, view, workspace);  // nothing was split
  }

  /// Shares split (sequence, KV head) pairs, so that each dk and dv has one writer. The sums of dk
  /// and dv run over rows, then over the query heads of the group, both ascending.
  template <std::floating_point T, class View>
  status backward(share part, query_rows<T> const& q, View const& view, T const* d_out, T* d_q,
                  kv_grad<accum_t<T>> const& grad, std::span<std::byte> workspace) const noexcept {
    if (auto const s = check_call(part, q, view, workspace); !s.ok()) return s;
    if (auto const s = detail::check_gradients(q, d_out, d_q); !s.ok()) return s;
    auto* const scratch = scratch_of<T>(part, view, workspace);
    auto const pairs = std::int64_t{q.num_seqs} * view.kv_heads;
    auto const group = q.q_heads / view.kv_heads;
    for (auto pair = part.begin(pairs); pair < part.end(pairs); ++pair) {
      auto const seq = static_cast<std::int32_t>(pair / view.kv_heads);
      auto const kv_head = static_cast<std::int32_t>(pair % view.kv_heads);
      start_grad(grad, view, seq, kv_head);
      for (auto row = q.row_begin(seq); row < q.row_end(seq); ++row)
        for (auto h = kv_head * group; h < (kv_head + 1) * group; ++h)
          backward_row(q, view, seq, row, h, d_out, d_q, grad, scratch);
    }
    return {};
  }

 private:
  template <class T, class View>
  static std::int64_t scratch_bytes(View const& view) noexcept {
    auto const elements = std::int64_t{view.k_dim} + 2 * std::int64_t{view.v_dim};
    return (elements * static_cast<std::int64_t>(sizeof(accum_t<T>)) + 63) / 64 * 64;
  }

  template <class T, class View>
  static accum_t<T>* scratch_of(share part, View const& view,
                                std::span<std::byte> workspace) noexcept {
    return reinterpret_cast<accum_t<T>*>(workspace_start(workspace) +
                                         part.ith * scratch_bytes<T>(view));
  }

  template <class T, class View>
  status check_call(share part, query_rows<T> const& q, View const& view,
                    std::span<std::byte> workspace) const noexcept {
    if (auto const s = check(part); !s.ok()) return s;
    if (auto const s = check(q, view); !s.ok()) return s;
    return detail::check_workspace(workspace, workspace_bytes(q, view, part.nth));
  }

  template <class T, class View>
  static void forward_row(query_rows<T> const& q, View const& view, std::int32_t seq,
                          std::int32_t row_index, std::int32_t head, accum_t<T>* scratch) noexcept {
    using A = accum_t<T>;
    detail::reference_row<T, View> row(q, view, seq, row_index, head, scratch);
    auto const state = detail::reference_softmax(row, q.sink(head));
    A* const sum = scratch + view.k_dim + view.v_dim;  // [v_dim]
    for (std::int32_t i = 0; i < view.v_dim; ++i) sum[i] = 0;
    for (auto t = row.keys().begin; t < row.keys().end; ++t) {
      if (!row.sees(t)) continue;
      A const weight = softmax_state<A>::decay(row.score(t), state.max);
      if (weight == 0) continue;
      A const* const value = row.load_value(t);
      for (std::int32_t i = 0; i < view.v_dim; ++i) sum[i] += weight * value[i];
    }
    auto const at = std::int64_t{row_index} * q.q_heads + head;
    for (std::int32_t i = 0; i < view.v_dim; ++i)
      q.out[at * view.v_dim + i] = detail::narrow<T>(state.empty() ? A{0} : sum[i] / state.sum);
    if (q.lse != nullptr) q.lse[at] = state.lse();
  }

  /// With P = exp(score - lse) and D = sum(d_out * out):
  ///   dV += P d_out,  dS = P (d_out . V - D),  dQ += dS slope K,  dK += dS slope Q
  template <class T, class View>
  static void backward_row(query_rows<T> const& q, View const& view, std::int32_t seq,
                           std::int32_t row_index, std::int32_t head, T const* d_out, T* d_q,
                           kv_grad<accum_t<T>> const& grad, accum_t<T>* scratch) noexcept {
    using A = accum_t<T>;
    detail::reference_row<T, View> row(q, view, seq, row_index, head, scratch);
    auto const at = std::int64_t{row_index} * q.q_heads + head;
    T const* const query = q.q + at * view.k_dim;
    T const* const d_row = d_out + at * view.v_dim;
    T* const d_query = d_q + at * view.k_dim;
    for (std::int32_t i = 0; i < view.k_dim; ++i) d_query[i] = 0;
    A d_total = 0;
    for (std::int32_t i = 0; i < view.v_dim; ++i)
      d_total += static_cast<A>(d_row[i]) * static_cast<A>(q.out[at * view.v_dim + i]);
    for (auto t = row.keys().begin; t < row.keys().end; ++t) {
      if (!row.sees(t)) continue;
      A const score = row.score(t);
      A const weight = softmax_state<A>::decay(score, q.lse[at]);
      if (weight == 0) continue;  // as in forward: not even an infinite K or V counts
      A const* const value = row.load_value(t);
      A d_weight = 0;
      for (std::int32_t i = 0; i < view.v_dim; ++i) d_weight += static_cast<A>(d_row[i]) * value[i];
      A const d_dot = weight * (d_weight - d_total) * row.rule().slope(score);
      for (std::int32_t i = 0; i < view.k_dim; ++i)
        d_query[i] += static_cast<T>(d_dot * row.key()[i]);
      if (A* const dk = grad_at(grad.dk, grad.dk_stride, seq, row.kv_head(), t); dk != nullptr)
        for (std::int32_t i = 0; i < view.k_dim; ++i) dk[i] += d_dot * static_cast<A>(query[i]);
      if (A* const dv = grad_at(grad.dv, grad.dv_stride, seq, row.kv_head(), t); dv != nullptr)
        for (std::int32_t i = 0; i < view.v_dim; ++i) dv[i] += weight * static_cast<A>(d_row[i]);
    }
  }

  template <class A>
  static A* grad_at(A* data, typename kv_grad<A>::strides const& stride, std::int32_t seq,
                    std::int32_t head, std::int32_t token) noexcept {
    if (data == nullptr) return nullptr;
    return data + seq * stride.seq + token * stride.token + head * stride.head;
  }

  /// Clears what is not to be added to.
  template <class A, class View>
  static void start_grad(kv_grad<A> const& grad, View const& view, std::int32_t seq,
                         std::int32_t head) noexcept {
    for (std::int32_t t = 0; t < view.length(seq, head); ++t) {
      A* const dk = grad.add_k ? nullptr : grad_at(grad.dk, grad.dk_stride, seq, head, t);
      A* const dv = grad.add_v ? nullptr : grad_at(grad.dv, grad.dv_stride, seq, head, t);
      for (std::int32_t i = 0; dk != nullptr && i < view.k_dim; ++i) dk[i] = 0;
      for (std::int32_t i = 0; dv != nullptr && i < view.v_dim; ++i) dv[i] = 0;
    }
  }
};

STRATA_NAMESPACE_END
