// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What an attention call is asked: queries of a batch, and the rule by which they score keys. One
// shape for prefill, decode, draft tokens and training.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <strata/cache/element.hpp>
#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// What queries and outputs are made of. Which of these a kernel takes, it says.
template <class T>
concept query_element = std::floating_point<T> || half_element<T>;

/// What sums are kept in: double for double, else float.
template <class T>
using accum_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// key_end of a call that reads all keys.
inline constexpr std::int64_t all_keys = (std::numeric_limits<std::int64_t>::max)();

/// From a dot product q . k to a score: s = softcap * tanh(scale * q . k / softcap), masked. A
/// query at position p sees a key at position x if x <= p (where causal) and x > p - window.
struct score_rule {
  double scale = 0;    ///< 0: 1 / sqrt(k_dim)
  double softcap = 0;  ///< 0: none
  std::int32_t window = unbounded_window;
  bool causal = true;
  /// [q_heads] or null: a logit per head that takes part in the softmax and adds no value
  /// (attention sinks). Counted once, in the call whose keys begin at 0.
  float const* sink_logits = nullptr;

  STRATA_HOST_DEVICE constexpr bool sees(std::int32_t query, std::int32_t key) const noexcept {
    return (!causal || key <= query) && std::int64_t{key} > std::int64_t{query} - window;
  }
};

/// The queries of one call. Rows of a sequence are adjacent; sequence s owns rows
/// offsets[s] .. offsets[s + 1] - 1; offsets[0] is 0. Query head h reads KV head h / (q_heads /
/// kv_heads).
template <query_element T>
struct query_rows {
  T const* q = nullptr;       ///< [rows, q_heads, k_dim]
  T* out = nullptr;           ///< [rows, q_heads, v_dim]
  accum_t<T>* lse = nullptr;  ///< [rows, q_heads], natural log of the sum of exp(score), or null
  std::int32_t const* offsets = nullptr;    ///< [num_seqs + 1]; null: `rows_per_seq` rows each
  std::int32_t const* positions = nullptr;  ///< [rows]; null: the rows end where the keys end
  std::int32_t rows_per_seq = 1;
  std::int32_t num_seqs = 0;
  std::int32_t q_heads = 0;
  /// A part of each sequence's tokens, by index. The output is then normalised over that part only,
  /// and `merge` joins it with the others by their lse (law 9).
  std::int64_t key_begin = 0;
  std::int64_t key_end = all_keys;
  score_rule rule = {};
  /// Where offsets are a device's: how many rows there are, and of one sequence at most, as far as
  /// the host knows (-1: it does not). Kernels refuse what their bounds leave no room for.
  std::int32_t known_rows = -1, known_rows_per_seq = -1;

  STRATA_HOST_DEVICE constexpr std::int32_t row_begin(std::int32_t seq) const noexcept {
    return offsets == nullptr ? seq * rows_per_seq : offsets[seq];
  }
  STRATA_HOST_DEVICE constexpr std::int32_t row_end(std::int32_t seq) const noexcept {
    return row_begin(seq + 1);
  }
  STRATA_HOST_DEVICE constexpr std::int32_t num_rows() const noexcept {
    return row_begin(num_seqs);
  }

  /// The sink of a query head, or null where there is none, or another part of the keys counts it.
  STRATA_HOST_DEVICE constexpr float const* sink(std::int64_t head) const noexcept {
    return rule.sink_logits == nullptr || key_begin != 0 ? nullptr : rule.sink_logits + head;
  }

  /// Position of a row of sequence `seq`, whose keys end before position `key_end_position`.
  STRATA_HOST_DEVICE constexpr std::int32_t position(std::int32_t seq, std::int32_t row,
                                                     std::int32_t key_end_position) const noexcept {
    return positions == nullptr ? key_end_position - (row_end(seq) - row) : positions[row];
  }
};

/// The queries of one layer, where somebody else (a step, a router) knows rows and positions.
template <query_element T>
struct layer_queries {
  T const* q = nullptr;       ///< [rows, q_heads, k_dim]
  T* out = nullptr;           ///< [rows, q_heads, v_dim]
  accum_t<T>* lse = nullptr;  ///< [rows, q_heads], or null
  std::int32_t q_heads = 0;
  std::int64_t key_begin = 0;  ///< a part of the keys, as in query_rows
  std::int64_t key_end = all_keys;
  score_rule rule = {};
  std::int32_t num_rows = -1;  ///< of q; a step checks it where given
};

/// Gradients of one source's K and V, in the caller's memory. Sums are kept in accum_t. Token t of
/// (sequence s, KV head h) is at data[s * stride.seq + t * stride.token + h * stride.head].
template <class A>
struct kv_grad {
  struct strides {
    std::int64_t seq = 0, token = 0, head = 0;  ///< in elements
  };
  A* dk = nullptr;  ///< [num_seqs, length, kv_heads, k_dim], or null: not wanted
  A* dv = nullptr;  ///< [num_seqs, length, kv_heads, v_dim], or null: not wanted
  strides dk_stride, dv_stride;
  bool add_k = false;  ///< add to dk instead of overwriting it
  bool add_v = false;

  /// Dense tensors of the given sizes.
  static constexpr kv_grad dense(A* dk, A* dv, std::int32_t length, std::int32_t kv_heads,
                                 std::int32_t k_dim, std::int32_t v_dim) noexcept {
    auto const of = [&](std::int64_t dim) {
      return strides{dim * kv_heads * length, dim * kv_heads, dim};
    };
    kv_grad grad;
    grad.dk = dk;
    grad.dv = dv;
    grad.dk_stride = of(k_dim);
    grad.dv_stride = of(v_dim);
    return grad;
  }
};

namespace detail {

template <class T>
[[gnu::always_inline]] constexpr status check_offsets(query_rows<T> const& q) noexcept {
  if (auto const rows = std::int64_t{q.num_seqs} * q.rows_per_seq;
      q.offsets == nullptr && (rows < 0 || rows > (std::numeric_limits<std::int32_t>::max)()))
    return {errc::size_overflow, no_layer, q.num_seqs, q.rows_per_seq};
  if (q.row_begin(0) != 0) return {errc::offsets_not_from_zero, no_layer, q.row_begin(0), 0};
  for (std::int32_t s = 0; s < q.num_seqs; ++s)
    if (q.row_end(s) < q.row_begin(s))
      return {errc::offsets_descend, no_layer, q.row_end(s), q.row_begin(s)};
  return {};
}

/// A: what scores are made in, where scale and softcap have to be finite, too. A softcap that A
/// does not hold in full precision would be none, or infinite once divided by.
template <class A>
[[gnu::always_inline]] constexpr status check_rule(score_rule const& rule) noexcept {
  if (rule.window < 1) return {errc::bad_window, no_layer, rule.window, 1};
  constexpr double least = (std::numeric_limits<A>::min)(), most = (std::numeric_limits<A>::max)();
  if (!(rule.scale >= 0 && rule.scale <= most)) return {errc::bad_scale};
  if (!(rule.softcap == 0 || (rule.softcap >= least && rule.softcap <= most)))
    return {errc::bad_softcap};
  return {};
}

}  // namespace detail

namespace detail {

/// What `check` refuses. Lengths and offsets that lie on a device cannot be looked at from the
/// host.
template <bool LookAtRows, class T, class View>
[[gnu::always_inline]] constexpr status check_call(query_rows<T> const& q,
                                                   View const& view) noexcept {
  if (auto const s = LookAtRows ? view.check() : view.check_shape(); !s.ok()) return s;
  if (q.num_seqs != view.rows.num_seqs)
    return {errc::num_seqs_mismatch, no_layer, q.num_seqs, view.rows.num_seqs};
  if (q.q_heads < 1 || q.q_heads % view.kv_heads != 0)
    return {errc::heads_not_divisible, no_layer, q.q_heads, view.kv_heads};
  if constexpr (LookAtRows)
    if (auto const s = check_offsets(q); !s.ok()) return s;
  bool const rows = LookAtRows ? q.num_rows() > 0
                               : q.num_seqs > 0 && (q.offsets != nullptr || q.rows_per_seq > 0);
  if (rows && (q.q == nullptr || q.out == nullptr))
    return null_pointer(q.q == nullptr ? tensor::q : tensor::out);
  if (q.positions == nullptr && view.rows.length_per_head)
    return {errc::positions_missing, no_layer, 0, 0};
  if (q.key_begin < 0 || q.key_end < q.key_begin)
    return {errc::bad_key_range, no_layer, q.key_begin, q.key_end};
  return check_rule<accum_t<T>>(q.rule);
}

}  // namespace detail

/// Refuses a call whose queries and view do not fit each other. Always inlined: kernels of several
/// instruction sets call it, and a linker would keep one body for all of them.
template <class T, class View>
[[gnu::always_inline]] constexpr status check(query_rows<T> const& q, View const& view) noexcept {
  return detail::check_call<true>(q, view);
}

/// The same for a call whose pointers, lengths and offsets among them, are a device's.
template <class T, class View>
[[gnu::always_inline]] constexpr status check_shape(query_rows<T> const& q,
                                                    View const& view) noexcept {
  return detail::check_call<false>(q, view);
}

namespace detail {

/// What backward brings and reads besides, where there are rows.
template <class T>
[[gnu::always_inline]] constexpr status check_gradients(bool rows, query_rows<T> const& q,
                                                        T const* d_out, T const* d_q) noexcept {
  if (!rows) return {};
  if (q.lse == nullptr) return null_pointer(tensor::lse);
  if (d_out == nullptr) return null_pointer(tensor::d_out);
  return d_q == nullptr ? null_pointer(tensor::d_q) : status{};
}
template <class T>
[[gnu::always_inline]] constexpr status check_gradients(query_rows<T> const& q, T const* d_out,
                                                        T const* d_q) noexcept {
  return check_gradients(q.num_rows() > 0, q, d_out, d_q);
}

}  // namespace detail

/// The same for a backward call, which reads what forward wrote.
template <class T, class View>
[[gnu::always_inline]] constexpr status check(query_rows<T> const& q, View const& view,
                                              T const* d_out, T const* d_q) noexcept {
  if (auto const s = check(q, view); !s.ok()) return s;
  return detail::check_gradients(q, d_out, d_q);
}

STRATA_NAMESPACE_END
