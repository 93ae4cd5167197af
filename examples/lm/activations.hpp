// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a training pass remembers between forward and backward, in one allocation.
//
// Kept per layer is what cannot be had cheaply again: the residual stream, Q, K, V, the attention's
// output and the MLP's gate and up. Norm outputs and the SwiGLU product are computed once more in
// backward, where their factors are at hand: that costs two products an element and saves 30 % of
// the memory, which at the demo's size (2048 rows, 8 layers: 93 MB) does not fit a cache anyway.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/attention/query.hpp>

#include "config.hpp"
#include "gemm.hpp"
#include "parameters.hpp"

namespace lm {

/// Of one layer, for all rows of the pass.
template <class T>
struct layer_activations {
  T* x = nullptr;                ///< [rows, dim], the layer's input
  T* attention_scale = nullptr;  ///< [rows], 1 / rms of x
  T* q = nullptr;                ///< [rows, q_heads, head_dim], as attention reads it
  T* k = nullptr;                ///< [rows, kv_heads, head_dim], as attention reads it
  T* v = nullptr;                ///< [rows, kv_heads, head_dim]
  T* raw_q = nullptr;            ///< q before its norm and RoPE; null without qk_norm
  T* raw_k = nullptr;            ///< k before its norm and RoPE; null without qk_norm
  T* q_scale = nullptr;          ///< [rows, q_heads], 1 / rms of raw_q; null without qk_norm
  T* k_scale = nullptr;          ///< [rows, kv_heads], 1 / rms of raw_k; null without qk_norm
  T* attended = nullptr;         ///< [rows, q_heads, head_dim], the attention's output
  T* lse = nullptr;              ///< [rows, q_heads]
  T* middle = nullptr;           ///< [rows, dim], x plus the attention block
  T* mlp_scale = nullptr;        ///< [rows], 1 / rms of middle
  T* gate = nullptr;             ///< [rows, mlp]
  T* up = nullptr;               ///< [rows, mlp]
  T* dk = nullptr;               ///< [rows, kv_heads, head_dim], complete when backward gets here
  T* dv = nullptr;               ///< [rows, kv_heads, head_dim]
};

/// Of no layer, or of the layer that backward is at.
template <class T>
struct pass_activations {
  T* x = nullptr;            ///< [rows, dim], output of the last layer
  T* final_scale = nullptr;  ///< [rows], 1 / rms of x
  T* final = nullptr;        ///< [rows, dim], x after the final norm
  T* logits = nullptr;       ///< [rows, vocab], then their gradient
  T* d_out = nullptr;        ///< [rows, dim], gradient of a layer's output
  T* d_middle = nullptr;     ///< [rows, dim]
  T* d_attended = nullptr;   ///< [rows, q_dim]
  T* d_q = nullptr;          ///< [rows, q_dim]
  T* d_gate = nullptr;       ///< [rows, mlp]
  T* d_up = nullptr;         ///< [rows, mlp]
  T* act = nullptr;          ///< [rows, mlp], its gradient, then SwiGLU's output
  T* h_attention = nullptr;  ///< [rows, dim], the attention norm's output
  T* h_mlp = nullptr;        ///< [rows, dim], the MLP norm's output
  // One partial sum per slab, added up in the order of the slabs.
  T* d_attention_norm = nullptr;  ///< [slabs, dim]; the final norm's too
  T* d_mlp_norm = nullptr;        ///< [slabs, dim]
  T* d_q_norm = nullptr;          ///< [slabs, head_dim]
  T* d_k_norm = nullptr;          ///< [slabs, head_dim]
};

/// One thread's, for the slab it works on.
template <class T>
struct slab_scratch {
  T* h = nullptr;    ///< [slab_rows, dim]
  T* act = nullptr;  ///< [slab_rows, mlp]
};

/// All of them, for up to `rows` rows.
template <class T>
struct activations {
  static_assert(std::is_same_v<T, strata::accum_t<T>>);

  std::vector<layer_activations<T>> layer;  // [layers]
  pass_activations<T> pass;
  std::vector<slab_scratch<T>> scratch;  // [threads]

  activations(model_config const& c, std::int64_t rows, std::int32_t threads)
      : activations(c, threads) {
    assign(c, rows);
    arena_ = aligned_buffer<T>(std::exchange(taken_, 0));
    assign(c, rows);
  }
  /// How many elements that would allocate.
  static std::int64_t count(model_config const& c, std::int64_t rows, std::int32_t threads) {
    activations counted(c, threads);
    counted.assign(c, rows);
    return counted.taken_;
  }
  std::int64_t bytes() const noexcept {
    return arena_.size() * static_cast<std::int64_t>(sizeof(T));
  }

 private:
  activations(model_config const& c, std::int32_t threads)
      : layer(static_cast<std::size_t>(c.layers)), scratch(static_cast<std::size_t>(threads)) {}

  /// Null while the size is being counted.
  T* take(std::int64_t count) noexcept {
    auto const at = taken_;
    taken_ += (count + 15) / 16 * 16;
    return arena_.size() == 0 ? nullptr : arena_.data() + at;
  }

  void assign(model_config const& c, std::int64_t rows) noexcept {
    for (auto& a : layer) {
      for (auto* const t : {&a.x, &a.middle}) *t = take(rows * c.dim);
      for (auto* const t : {&a.attention_scale, &a.mlp_scale}) *t = take(rows);
      for (auto* const t : {&a.q, &a.attended}) *t = take(rows * c.q_dim());
      for (auto* const t : {&a.k, &a.v, &a.dk, &a.dv}) *t = take(rows * c.kv_dim());
      for (auto* const t : {&a.gate, &a.up}) *t = take(rows * c.mlp);
      a.lse = take(rows * c.q_heads);
      if (!c.qk_norm) continue;
      a.raw_q = take(rows * c.q_dim());
      a.raw_k = take(rows * c.kv_dim());
      a.q_scale = take(rows * c.q_heads);
      a.k_scale = take(rows * c.kv_heads);
    }
    auto& a = pass;
    for (auto* const t : {&a.x, &a.final, &a.d_out, &a.d_middle, &a.h_attention, &a.h_mlp})
      *t = take(rows * c.dim);
    for (auto* const t : {&a.d_attended, &a.d_q}) *t = take(rows * c.q_dim());
    for (auto* const t : {&a.d_gate, &a.d_up, &a.act}) *t = take(rows * c.mlp);
    a.final_scale = take(rows);
    a.logits = take(rows * c.vocab);
    for (auto* const t : {&a.d_attention_norm, &a.d_mlp_norm}) *t = take(num_slabs(rows) * c.dim);
    for (auto* const t : {&a.d_q_norm, &a.d_k_norm}) *t = take(num_slabs(rows) * c.head_dim);
    for (auto& s : scratch) {
      s.h = take(slab_rows * c.dim);
      s.act = take(slab_rows * c.mlp);
    }
  }

  aligned_buffer<T> arena_;
  std::int64_t taken_ = 0;
};

}  // namespace lm
