// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The backward half of lm::cuda::device_trainee; included by device_model.hpp. The order of things
// is model_backward.hpp's: down the layers, each layer's attention before its projections, so that
// dk and dv are complete when their turn comes (law 7).
#pragma once

#include "cuda/device_model.hpp"

namespace lm::cuda {

template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::backward(strata::route_plan const& plan) {
  auto const& a = memory_.pass;
  finish_backward();
  for (auto l = config_.layers - 1; l >= 0; --l) {
    after_attention_backward(l);
    attention_backward(plan, l);
    before_attention_backward(plan, l);
  }
  machine_.launch(embedding_gradient{a.d_out, a.order, a.begins, a.groups,
                                     state_.gradient_weights().embedding,
                                     static_cast<std::int64_t>(groups_.num_groups()), config_.dim});
}

/// Adds the sum of a term over rows to the gradient of a norm's gain.
template <training_machine Machine, class Sampler>
template <class Term>
void device_trainee<Machine, Sampler>::add_gain_gradient(Term const& term, std::int64_t rows,
                                                         std::int64_t columns, float* gradient) {
  float* const parts = memory_.pass.parts;
  machine_.launch(column_sums<Term>::of(term, parts, rows, columns));
  machine_.launch(add_parts{parts, gradient, sum_parts(rows), columns});
}

/// From d_h, the gradient of a norm's output, to that of its input; the output once more to h.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::norm_backward(bfloat16 const* x, float const* scale,
                                                     bfloat16 const* gain, bfloat16 const* residual,
                                                     bfloat16* dx, float* gain_gradient) {
  auto const& pass = memory_.pass;
  auto const dim = std::int64_t{config_.dim};
  add_gain_gradient(norm_gain_term<float>{pass.d_h, x, scale, dim}, rows_, dim, gain_gradient);
  machine_.launch(
      rms_norm_backward<float>{pass.d_h, x, scale, gain, residual, dx, pass.h, rows_, dim});
}

/// RoPE and norm of query or key heads: d becomes d_raw.
template <training_machine Machine, class Sampler>
template <class D>
void device_trainee<Machine, Sampler>::heads_backward(D const* d, bfloat16 const* raw,
                                                      float const* scale, bfloat16 const* gain,
                                                      float* gain_gradient, bfloat16* d_raw,
                                                      std::int32_t heads) {
  auto const at = turns(heads);
  if (gain != nullptr)
    add_gain_gradient(head_gain_term<D>{at, d, raw, scale}, rows_ * heads, config_.head_dim,
                      gain_gradient);
  machine_.launch(turn_heads_backward<D>{at, d, raw, scale, gain, d_raw});
}

/// From the logits' gradient to that of the last layer's output.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::finish_backward() {
  auto const& c = config_;
  auto const& a = memory_.pass;
  auto const& g = state_.gradient_weights();
  machine_.weight_gradient(a.logits, a.final, g.head, rows_, c.dim, c.vocab);
  machine_.input_gradient(a.logits, weights().head, a.d_h, rows_, c.dim, c.vocab);
  norm_backward(a.x, a.final_scale, weights().final_norm, nullptr, a.d_out, g.final_norm);
}

/// From the gradient of the layer's output to that of the attention's.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::after_attention_backward(std::int32_t l) {
  auto const& c = config_;
  auto const& w = weights_of(l);
  auto const& g = gradients_of(l);
  auto const& a = layer(l);
  auto const& pass = memory_.pass;
  machine_.input_gradient(pass.d_out, w.w_down, pass.act, rows_, c.mlp, c.dim);
  auto const stride = memory_.mlp_stride;
  bool const apart = stride == c.mlp;  // else what is said of gate holds for gate and up
  machine_.launch(
      swiglu_backward{a.gate, a.up, pass.act, pass.d_gate, pass.d_up, rows_, c.mlp, stride});
  machine_.weight_gradient(pass.d_out, pass.act, g.w_down, rows_, c.mlp, c.dim);
  machine_.input_gradient(pass.d_gate, w.w_gate, pass.d_h, rows_, c.dim, stride);
  if (apart) machine_.input_gradient(pass.d_up, w.w_up, pass.d_h, rows_, c.dim, stride, true);
  drop(mlp_input(l), pass.d_h);
  norm_backward(a.middle, a.mlp_scale, w.mlp_norm, pass.d_out, pass.d_middle, g.mlp_norm);
  drop(mlp_input(l), pass.h);
  machine_.weight_gradient(pass.d_gate, pass.h, g.w_gate, rows_, c.dim, stride);
  if (apart) machine_.weight_gradient(pass.d_up, pass.h, g.w_up, rows_, c.dim, stride);
  machine_.weight_gradient(pass.d_middle, a.attended, g.wo, rows_, c.q_dim(), c.dim);
  machine_.input_gradient(pass.d_middle, w.wo, pass.d_attended, rows_, c.q_dim(), c.dim);
}

template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::attention_backward(strata::route_plan const& plan,
                                                          std::int32_t l) {
  auto const& pass = memory_.pass;
  auto const c = call(plan, l, shape());
  lm::require(machine_.attend_backward(c.q, c.view, pass.d_attended, pass.d_q, c.grad),
              "attention, backward");
  auto const start_at_zero = [&](std::span<float> sums) {
    if (!sums.empty()) machine_.fill_zero(sums.data(), static_cast<std::int64_t>(sums.size()));
  };
  start_at_zero(c.zero_dk);
  start_at_zero(c.zero_dv);
}

/// From the gradients of Q, K and V to that of the layer's input, which is the output of the layer
/// below. What nobody read has no gradient: its products are skipped.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::before_attention_backward(strata::route_plan const& plan,
                                                                 std::int32_t l) {
  auto const& c = config_;
  auto const& w = weights_of(l);
  auto const& g = gradients_of(l);
  auto const& a = layer(l);
  auto const& pass = memory_.pass;
  bool const has_k = plan.layers[l].k.stored, has_v = plan.layers[l].v.stored;
  heads_backward(static_cast<bfloat16 const*>(pass.d_q), a.raw_q, a.q_scale, w.q_norm, g.q_norm,
                 pass.d_q, c.q_heads);
  machine_.input_gradient(pass.d_q, w.wq, pass.d_h, rows_, c.dim, c.q_dim());
  if (has_k) {
    heads_backward(static_cast<float const*>(a.dk), a.raw_k, a.k_scale, w.k_norm, g.k_norm,
                   pass.d_k, c.kv_heads);
    machine_.input_gradient(pass.d_k, w.wk, pass.d_h, rows_, c.dim, c.kv_dim(), true);
  }
  if (has_v) {
    machine_.launch(cast<float, bfloat16>{a.dv, pass.d_v, rows_ * c.kv_dim()});
    machine_.input_gradient(pass.d_v, w.wv, pass.d_h, rows_, c.dim, c.kv_dim(), true);
  }
  drop(attention_input(l), pass.d_h);
  norm_backward(a.x, a.attention_scale, w.attention_norm, pass.d_middle, pass.d_out,
                g.attention_norm);
  drop(attention_input(l), pass.h);
  machine_.weight_gradient(pass.d_q, pass.h, g.wq, rows_, c.dim, c.q_dim());
  if (has_k) machine_.weight_gradient(pass.d_k, pass.h, g.wk, rows_, c.dim, c.kv_dim());
  if (has_v) machine_.weight_gradient(pass.d_v, pass.h, g.wv, rows_, c.dim, c.kv_dim());
}

}  // namespace lm::cuda
