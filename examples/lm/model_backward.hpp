// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The backward half of lm::trainee; included by model.hpp.
//
// Down the layers. When layer l's turn comes, dk and dv of its own K and V are complete, because
// its readers are itself or above it (law 7); its own attention, which may add to them as the last
// one, comes before its projections.
#pragma once

#include "model.hpp"

namespace lm {

template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::backward(strata::route_plan const& plan) {
  auto const& c = config();
  auto const& a = memory_.pass;
  auto const top = c.layers - 1;
  auto const shape = strata::pass_shape{batch_.num_seqs, batch_.length};
  for_slabs(pool_, rows_, [&](slab s) {
    finish_backward(s);
    after_attention_backward(top, s);
  });
  add_norm_gradient(a.d_attention_norm, gradients_.weights().final_norm, c.dim);
  products_.clear();
  products_.push_back({a.logits, a.final, gradients_.weights().head, c.vocab, c.dim});
  for (auto l = top; l >= 0; --l) {
    add_norm_gradient(a.d_mlp_norm, gradients_of(l).mlp_norm, c.dim);
    list_mlp_gradients(l);
    add_weight_gradients<T>(pool_, products_, rows_);
    products_.clear();
    require(router_.backward(pool_, plan, strata::layer_id{l}, queries(strata::layer_id{l}),
                             tensors_, shape, a.d_attended, a.d_q, workspace()),
            "attention, backward");
    for_slabs(pool_, rows_, [&](slab s) {
      before_attention_backward(plan, l, s);
      if (l > 0) after_attention_backward(l - 1, s);
    });
    list_attention_gradients(plan, l);
  }
  add_weight_gradients<T>(pool_, products_, rows_);
  for_tasks(pool_, num_slabs(c.dim, 16), [&](std::int64_t i, std::int32_t) {
    auto const end = (i + 1) * 16 < c.dim ? (i + 1) * 16 : c.dim;
    embed_backward(batch_.inputs, a.d_out, gradients_.weights().embedding, rows_, c.dim, i * 16,
                   end);
  });
}

/// From the logits' gradient to that of the last layer's output.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::finish_backward(slab s) noexcept {
  auto const& c = config();
  auto const& a = memory_.pass;
  T* const d_h = scratch(s).h;
  T* const d_gain = a.d_attention_norm + s.index * c.dim;
  fill_zero(d_gain, c.dim);
  linear_input_gradient_slab(a.logits + s.begin * c.vocab, weights().weights().head, d_h, s.count,
                             c.dim, c.vocab);
  rms_norm_backward<T>(d_h, a.x + s.begin * c.dim, a.final_scale + s.begin,
                       weights().weights().final_norm, nullptr, a.d_out + s.begin * c.dim, nullptr,
                       d_gain, s.count, c.dim);
}

/// From the gradient of the layer's output to that of the attention's.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::after_attention_backward(std::int32_t l, slab s) noexcept {
  auto const& c = config();
  auto const& w = weights_of(l);
  auto const& a = layer(l);
  auto const& pass = memory_.pass;
  auto const row = s.begin * c.dim, wide = s.begin * c.mlp;
  T* const d_h = scratch(s).h;
  T* const d_gain = pass.d_mlp_norm + s.index * c.dim;
  fill_zero(d_gain, c.dim);
  linear_input_gradient_slab(pass.d_out + row, w.w_down, pass.act + wide, s.count, c.mlp, c.dim);
  swiglu_backward(a.gate + wide, a.up + wide, pass.act + wide, pass.d_gate + wide, pass.d_up + wide,
                  s.count * c.mlp);
  linear_input_gradient_slab(pass.d_gate + wide, w.w_gate, d_h, s.count, c.dim, c.mlp);
  linear_input_gradient_slab(pass.d_up + wide, w.w_up, d_h, s.count, c.dim, c.mlp, T{1});
  drop(dropped_, mlp_input(l), row, d_h, s.count * c.dim);
  rms_norm_backward(d_h, a.middle + row, a.mlp_scale + s.begin, w.mlp_norm, pass.d_out + row,
                    pass.d_middle + row, pass.h_mlp + row, d_gain, s.count, c.dim);
  drop(dropped_, mlp_input(l), row, pass.h_mlp + row, s.count * c.dim);
  linear_input_gradient_slab(pass.d_middle + row, w.wo, pass.d_attended + s.begin * c.q_dim(),
                             s.count, c.q_dim(), c.dim);
}

/// From the gradients of Q, K and V to that of the layer's input, which is the output of the layer
/// below. What nobody read has no gradient: its products are skipped.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::before_attention_backward(strata::route_plan const& plan,
                                                            std::int32_t l, slab s) noexcept {
  auto const& c = config();
  auto const& w = weights_of(l);
  auto const& a = layer(l);
  auto const& pass = memory_.pass;
  auto const row = s.begin * c.dim, kv_row = s.begin * c.kv_dim();
  T* const d_h = scratch(s).h;
  T* const d_gain = pass.d_attention_norm + s.index * c.dim;
  T* const d_q = pass.d_q + s.begin * c.q_dim();
  fill_zero(d_gain, c.dim);
  heads_backward(d_q, w.q_norm, a.raw_q, a.q_scale, pass.d_q_norm, c.q_heads, s);
  linear_input_gradient_slab(d_q, w.wq, d_h, s.count, c.dim, c.q_dim());
  if (computes_k(plan, l)) {
    if (!plan.layers[l].k.stored) fill_zero(a.dk + kv_row, s.count * c.kv_dim());
    heads_backward(a.dk + kv_row, w.k_norm, a.raw_k, a.k_scale, pass.d_k_norm, c.kv_heads, s);
    linear_input_gradient_slab(a.dk + kv_row, w.wk, d_h, s.count, c.dim, c.kv_dim(), T{1});
  }
  if (computes_v(plan, l)) {
    if (!plan.layers[l].v.stored) fill_zero(a.dv + kv_row, s.count * c.kv_dim());
    linear_input_gradient_slab(a.dv + kv_row, w.wv, d_h, s.count, c.dim, c.kv_dim(), T{1});
  }
  drop(dropped_, attention_input(l), row, d_h, s.count * c.dim);
  rms_norm_backward(d_h, a.x + row, a.attention_scale + s.begin, w.attention_norm,
                    pass.d_middle + row, pass.d_out + row, pass.h_attention + row, d_gain, s.count,
                    c.dim);
  drop(dropped_, attention_input(l), row, pass.h_attention + row, s.count * c.dim);
}

/// RoPE and norm of query or key heads, backward and in place. d: this slab's [rows, heads,
/// head_dim].
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::heads_backward(T* d, T const* gain, T const* raw, T const* scale,
                                                 T* d_gain, std::int32_t heads, slab s) noexcept {
  auto const dim = config().head_dim;
  rope(
      rope_, d, s.count, heads, [&](std::int64_t r) { return (s.begin + r) % batch_.length; },
      T{-1});
  if (gain == nullptr) return;
  T* const part = d_gain + s.index * dim;
  fill_zero(part, dim);
  T head[1024];  // the widest that model_config allows
  auto const first = s.begin * heads;
  for (std::int64_t h = 0; h < s.count * heads; ++h) {
    copy(d + h * dim, head, dim);
    rms_norm_backward<T>(head, raw + (first + h) * dim, scale + first + h, gain, nullptr,
                         d + h * dim, nullptr, part, 1, dim);
  }
}

template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::list_mlp_gradients(std::int32_t l) {
  auto const& c = config();
  auto const& g = gradients_of(l);
  auto const& pass = memory_.pass;
  products_.push_back({pass.d_gate, pass.h_mlp, g.w_gate, c.mlp, c.dim});
  products_.push_back({pass.d_up, pass.h_mlp, g.w_up, c.mlp, c.dim});
  products_.push_back({pass.d_out, pass.act, g.w_down, c.dim, c.mlp});
  products_.push_back({pass.d_middle, layer(l).attended, g.wo, c.dim, c.q_dim()});
}

template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::list_attention_gradients(strata::route_plan const& plan,
                                                           std::int32_t l) {
  auto const& c = config();
  auto const& g = gradients_of(l);
  auto const& a = layer(l);
  auto const& pass = memory_.pass;
  add_norm_gradient(pass.d_attention_norm, g.attention_norm, c.dim);
  products_.push_back({pass.d_q, pass.h_attention, g.wq, c.q_dim(), c.dim});
  if (computes_k(plan, l)) products_.push_back({a.dk, pass.h_attention, g.wk, c.kv_dim(), c.dim});
  if (computes_v(plan, l)) products_.push_back({a.dv, pass.h_attention, g.wv, c.kv_dim(), c.dim});
  if (!c.qk_norm) return;
  add_norm_gradient(pass.d_q_norm, g.q_norm, c.head_dim);
  if (computes_k(plan, l)) add_norm_gradient(pass.d_k_norm, g.k_norm, c.head_dim);
}

/// Adds the slabs' parts in ascending order. parts: [slabs, dim].
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::add_norm_gradient(T const* parts, T* gradient,
                                                    std::int64_t dim) noexcept {
  for (std::int64_t s = 0; s < num_slabs(rows_); ++s)
    for (std::int64_t i = 0; i < dim; ++i) gradient[i] += parts[s * dim + i];
}

}  // namespace lm
