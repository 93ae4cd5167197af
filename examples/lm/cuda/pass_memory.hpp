// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a training pass on a device remembers between forward and backward: activations.hpp's
// tensors, numbers in bf16, statistics and sums in float, in one allocation. There are no slabs: a
// device's cache is shared by all of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "config.hpp"
#include "cuda/arena.hpp"
#include "cuda/column_sums.hpp"
#include "parameters.hpp"

namespace lm::cuda {

/// Of one layer, for all rows of the pass.
struct layer_memory {
  bfloat16* x = nullptr;             ///< [rows, dim], the layer's input
  float* attention_scale = nullptr;  ///< [rows], 1 / rms of x
  bfloat16* q = nullptr;             ///< [rows, q_heads, head_dim], as attention reads it
  bfloat16* k = nullptr;             ///< [rows, kv_heads, head_dim], as attention reads it
  bfloat16* v = nullptr;             ///< [rows, kv_heads, head_dim]
  bfloat16* raw_q = nullptr;         ///< q before its norm and RoPE; q itself without qk_norm
  bfloat16* raw_k = nullptr;         ///< k before its norm and RoPE; k itself without qk_norm
  float* q_scale = nullptr;          ///< [rows, q_heads], 1 / rms of raw_q; null without qk_norm
  float* k_scale = nullptr;          ///< [rows, kv_heads], 1 / rms of raw_k; null without qk_norm
  bfloat16* attended = nullptr;      ///< [rows, q_heads, head_dim], the attention's output
  float* lse = nullptr;              ///< [rows, q_heads]
  bfloat16* middle = nullptr;        ///< [rows, dim], x plus the attention block
  float* mlp_scale = nullptr;        ///< [rows], 1 / rms of middle
  bfloat16* gate = nullptr;          ///< [rows, mlp], rows `pass_memory::mlp_stride` apart
  bfloat16* up = nullptr;            ///< the same
  float* dk = nullptr;  ///< [rows, kv_heads, head_dim], complete when backward gets here
  float* dv = nullptr;  ///< [rows, kv_heads, head_dim]
};

/// Of no layer, or of the layer that the pass is at.
struct shared_memory {
  std::int32_t* inputs = nullptr;   ///< [rows], tokens
  std::int32_t* targets = nullptr;  ///< [rows]
  std::int32_t* order = nullptr;    ///< [rows], as token_groups has it
  std::int32_t* begins = nullptr;   ///< [rows + 1]
  std::int32_t* groups = nullptr;   ///< [rows], tokens of groups
  bfloat16* x = nullptr;            ///< [rows, dim], output of the last layer
  float* final_scale = nullptr;     ///< [rows], 1 / rms of x
  bfloat16* final = nullptr;        ///< [rows, dim], x after the final norm
  bfloat16* logits = nullptr;       ///< [rows, vocab], then their gradient
  float* losses = nullptr;          ///< [rows]
  double* loss = nullptr;           ///< [1]
  bfloat16* d_out = nullptr;        ///< [rows, dim], gradient of a layer's output
  bfloat16* d_middle = nullptr;     ///< [rows, dim]
  float* d_h = nullptr;             ///< [rows, dim], gradient of a norm's output
  bfloat16* d_attended = nullptr;   ///< [rows, q_dim]
  bfloat16* d_q = nullptr;          ///< [rows, q_dim]
  bfloat16* d_k = nullptr;          ///< [rows, kv_dim], of what was projected
  bfloat16* d_v = nullptr;          ///< [rows, kv_dim]
  bfloat16* d_gate = nullptr;       ///< [rows, mlp], as gate lies
  bfloat16* d_up = nullptr;         ///< the same
  bfloat16* act = nullptr;  ///< [rows, mlp], SwiGLU's output; in backward first its gradient
  bfloat16* h = nullptr;    ///< [rows, dim], a norm's output
  float* parts = nullptr;   ///< [128, dim or head_dim], of column_sums
};

/// All of them, for up to `rows` rows, and how many bytes that is.
class pass_memory : arena {
 public:
  std::vector<layer_memory> layer;  // [layers]
  shared_memory pass;
  /// Elements from a row of gate or up to the next: of both, where their weights lie without a gap
  /// and are one product's.
  std::int64_t mlp_stride = 0;

  static std::int64_t bytes(model_config const& c, std::int64_t rows) {
    pass_memory counted;
    counted.assign(c, rows);
    return counted.taken();
  }
  /// Points into memory of so many bytes, which the caller owns.
  pass_memory(model_config const& c, std::int64_t rows, std::byte* memory) : arena(memory) {
    assign(c, rows);
  }

 private:
  pass_memory() = default;

  void take_mlp(bfloat16*& gate, bfloat16*& up, std::int64_t mlp, std::int64_t rows) {
    take(gate, 2 * rows * mlp);
    if (!counts()) up = gate + (mlp_stride > mlp ? mlp : rows * mlp);
  }

  void assign(model_config const& c, std::int64_t rows) {
    mlp_stride = mlp_is_one_product(c) ? 2 * std::int64_t{c.mlp} : c.mlp;
    layer.resize(static_cast<std::size_t>(c.layers));
    for (auto& a : layer) assign_layer(a, c, rows);
    auto& a = pass;
    for (auto* const t : {&a.inputs, &a.targets, &a.order, &a.groups}) take(*t, rows);
    take(a.begins, rows + 1);
    for (auto* const t : {&a.x, &a.final, &a.d_out, &a.d_middle, &a.h}) take(*t, rows * c.dim);
    take(a.d_h, rows * c.dim);
    for (auto* const t : {&a.final_scale, &a.losses}) take(*t, rows);
    take(a.loss, 1);
    take(a.logits, rows * c.vocab);
    for (auto* const t : {&a.d_attended, &a.d_q}) take(*t, rows * c.q_dim());
    for (auto* const t : {&a.d_k, &a.d_v}) take(*t, rows * c.kv_dim());
    take_mlp(a.d_gate, a.d_up, c.mlp, rows);
    take(a.act, rows * c.mlp);
    take(a.parts, most_parts * (c.dim > c.head_dim ? c.dim : c.head_dim));
  }

  void assign_layer(layer_memory& a, model_config const& c, std::int64_t rows) {
    for (auto* const t : {&a.x, &a.middle}) take(*t, rows * c.dim);
    for (auto* const t : {&a.attention_scale, &a.mlp_scale}) take(*t, rows);
    for (auto* const t : {&a.q, &a.attended}) take(*t, rows * c.q_dim());
    for (auto* const t : {&a.k, &a.v}) take(*t, rows * c.kv_dim());
    for (auto* const t : {&a.dk, &a.dv}) take(*t, rows * c.kv_dim());
    take_mlp(a.gate, a.up, c.mlp, rows);
    take(a.lse, rows * c.q_heads);
    a.raw_q = a.q;
    a.raw_k = a.k;
    if (!c.qk_norm) return;
    take(a.raw_q, rows * c.q_dim());
    take(a.raw_k, rows * c.kv_dim());
    take(a.q_scale, rows * c.q_heads);
    take(a.k_scale, rows * c.kv_heads);
  }
};

}  // namespace lm::cuda
