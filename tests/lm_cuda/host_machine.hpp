// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A machine for models on a device (cuda/machine.hpp) that is none: bodies run thread by thread,
// products are loops, attention is the reference, both in double and rounded where a device rounds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <strata/attention/kernel.hpp>
#include <strata/attention/reference.hpp>
#include <strata/executor.hpp>

#include "bodies.hpp"
#include "cuda/machine.hpp"

namespace bodies {

class host_machine {
 public:
  /// Memory that holds NaN until it is written.
  template <class T>
  class buffer {
   public:
    buffer() = default;
    explicit buffer(std::int64_t count)
        : memory_(std::make_unique<strata::cuda::detail::chunk[]>(
              (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16)) {
      std::memset(memory_.get(), 0xFF, static_cast<std::size_t>(count) * sizeof(T));
    }
    T* data() const { return reinterpret_cast<T*>(memory_.get()); }

   private:
    std::unique_ptr<strata::cuda::detail::chunk[]> memory_;
  };

  simt::order order = simt::order::shuffled;

  template <class T>
  buffer<T> allocate(std::int64_t count) {
    return buffer<T>(count);
  }
  template <class Body>
  void launch(Body const& body) {
    run(body, order);
  }
  template <class T>
  void upload(std::span<T const> from, T* to) {
    std::copy(from.begin(), from.end(), to);
  }
  template <class T>
  void download(T const* from, std::span<T> to) {
    std::copy_n(from, to.size(), to.begin());
  }
  template <class T>
  void fill_zero(T* to, std::int64_t count) {
    std::fill_n(to, count, T{});
  }
  void wait() {}

  template <class Out>
  void linear(bfloat16 const* x, bfloat16 const* w, Out* y, std::int64_t rows, std::int64_t in,
              std::int64_t out, Out const* c = nullptr) {
    multiply(y, rows, out, in, c,
             [=](auto r, auto o, auto i) { return value(x[r * in + i]) * value(w[o * in + i]); });
  }
  template <class Out>
  void input_gradient(bfloat16 const* dy, bfloat16 const* w, Out* dx, std::int64_t rows,
                      std::int64_t in, std::int64_t out, bool add = false) {
    multiply(dx, rows, in, out, add ? dx : nullptr,
             [=](auto r, auto i, auto o) { return value(dy[r * out + o]) * value(w[o * in + i]); });
  }
  void weight_gradient(bfloat16 const* dy, bfloat16 const* x, float* dw, std::int64_t rows,
                       std::int64_t in, std::int64_t out) {
    multiply(dw, out, in, rows, dw,
             [=](auto o, auto i, auto r) { return value(dy[r * out + o]) * value(x[r * in + i]); });
  }

  strata::status reserve_attention(lm::cuda::pass_queries const&, lm::cuda::pass_view const&) {
    return {};
  }
  strata::status attend_forward(lm::cuda::pass_queries const& q, lm::cuda::pass_view const& view) {
    call c(q, view);
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(reference_.workspace_bytes(c.rows, c.keys(), 1)));
    auto const s = strata::attend(serial_, reference_, c.rows, c.keys(), workspace);
    narrow(c.out, q.out);
    std::copy(c.lse.begin(), c.lse.end(), q.lse);
    return s;
  }
  strata::status attend_backward(lm::cuda::pass_queries const& q, lm::cuda::pass_view const& view,
                                 bfloat16 const* d_out, bfloat16* d_q,
                                 strata::kv_grad<float> const& grad) {
    call c(q, view);
    std::ranges::copy(widen(q.out, c.out.size()), c.out.begin());
    std::copy_n(q.lse, c.lse.size(), c.lse.begin());
    auto const by = widen(d_out, c.out.size());
    std::vector<double> dq(c.q.size()), dk(c.k.size()), dv(c.v.size());
    auto const sums = strata::kv_grad<double>::dense(dk.data(), dv.data(), view.rows.length,
                                                     view.kv_heads, view.k_dim, view.v_dim);
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(reference_.backward_workspace_bytes(c.rows, c.keys(), 1)));
    auto const s = strata::attend_backward(serial_, reference_, c.rows, c.keys(), by.data(),
                                           dq.data(), sums, workspace);
    narrow(dq, d_q);
    take(dk, grad.dk, grad.add_k);
    take(dv, grad.dv, grad.add_v);
    return s;
  }

 private:
  template <class Out, class Term>
  static void multiply(Out* to, std::int64_t rows, std::int64_t cols, std::int64_t depth,
                       Out const* plus, Term const& term) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) {
        double sum = plus == nullptr ? 0 : value(plus[r * cols + c]);
        for (std::int64_t i = 0; i < depth; ++i) sum += term(r, c, i);
        to[r * cols + c] = strata::detail::narrow<Out>(static_cast<float>(sum));
      }
  }
  static std::vector<double> widen(bfloat16 const* from, std::size_t count) {
    return doubles(std::vector<bfloat16>(from, from + count));
  }
  static void narrow(std::vector<double> const& from, bfloat16* to) {
    for (auto const x : from) *to++ = strata::to_bfloat16(static_cast<float>(x));
  }
  static void take(std::vector<double> const& from, float* to, bool add) {
    if (to == nullptr) return;
    for (auto const x : from) {
      *to = static_cast<float>(x + (add ? double{*to} : 0));
      ++to;
    }
  }

  /// A call's tensors in double.
  struct call {
    std::vector<double> q, k, v, out, lse;
    strata::query_rows<double> rows;
    lm::cuda::pass_view const& view;

    call(lm::cuda::pass_queries const& given, lm::cuda::pass_view const& given_view)
        : view(given_view) {
      auto const heads =
          static_cast<std::size_t>(given.num_rows()) * static_cast<std::size_t>(given.q_heads);
      auto const tokens = static_cast<std::size_t>(view.rows.num_seqs * view.rows.length) *
                          static_cast<std::size_t>(view.kv_heads);
      auto const k_dim = static_cast<std::size_t>(view.k_dim),
                 v_dim = static_cast<std::size_t>(view.v_dim);
      auto const numbers = [](std::byte const* p) { return reinterpret_cast<bfloat16 const*>(p); };
      q = widen(given.q, heads * k_dim);
      k = widen(numbers(view.k.data), tokens * k_dim);
      v = widen(numbers(view.v.data), tokens * v_dim);
      out.resize(heads * v_dim);
      lse.resize(heads);
      rows = {q.data(), out.data(), lse.data()};
      rows.rows_per_seq = given.rows_per_seq;
      rows.num_seqs = given.num_seqs;
      rows.q_heads = given.q_heads;
      rows.rule = given.rule;
    }
    call(call const&) = delete;
    strata::kv_view<strata::f64_codec> keys() const {
      return strata::contiguous_view(k.data(), v.data(), view.rows.num_seqs, view.rows.length,
                                     view.kv_heads, view.k_dim, view.v_dim);
    }
  };

  strata::serial_executor serial_;
  strata::reference_attention reference_;
};

static_assert(lm::cuda::training_machine<host_machine>);

}  // namespace bodies
