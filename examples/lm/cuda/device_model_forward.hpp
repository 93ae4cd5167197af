// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The forward half of lm::cuda::device_trainee; included by device_model.hpp.
#pragma once

#include "cuda/device_model.hpp"

namespace lm::cuda {

/// Brings a batch to the device, and with `grouped` what the embedding's gradient needs.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::start(token_batch const& batch, bool grouped) {
  require_batch(batch, most_, config_);
  batch_ = batch;
  rows_ = batch.rows();
  scored_ = batch.scored();
  machine_.wait();  // the last batch may still be on its way
  inputs_.assign(batch.inputs, batch.inputs + rows_);
  targets_.assign(batch.targets, batch.targets + rows_);
  auto const& a = memory_.pass;
  auto const upload = [&](std::vector<std::int32_t> const& from, std::int32_t* to) {
    machine_.upload(std::span<std::int32_t const>(from), to);
  };
  upload(inputs_, a.inputs);
  upload(targets_, a.targets);
  if (!grouped) return;
  groups_.sort(inputs_, config_.vocab);
  upload(groups_.order, a.order);
  upload(groups_.begins, a.begins);
  upload(groups_.tokens, a.groups);
}

template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::run_forward(strata::route_plan const& plan,
                                                   token_batch const& batch, double weight,
                                                   bool gradient) {
  start(batch, gradient);
  machine_.launch(gather_rows<bfloat16>{weights().embedding, memory_.pass.inputs, layer(0).x, rows_,
                                        config_.dim});
  for (std::int32_t l = 0; l < config_.layers; ++l) {
    auto const c = call(plan, l, shape());
    before_attention(plan, l);
    lm::require(machine_.attend_forward(c.q, c.view), "attention");
    after_attention(l);
  }
  finish(weight, gradient);
}

template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::norm(bfloat16 const* x, bfloat16 const* gain, bfloat16* y,
                                            float* scale) {
  rms_norm op;
  op.x = x;
  op.gain = gain;
  op.y = y;
  op.inverse_rms = scale;
  op.rows = rows_;
  op.dim = config_.dim;
  op.epsilon = epsilon();
  machine_.launch(op);
}

/// Projection of the norm's output, norm (where there is a gain) and RoPE of query or key heads.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::project_heads(bfloat16 const* w, bfloat16 const* gain,
                                                     bfloat16* raw, float* scale, bfloat16* out,
                                                     std::int32_t heads) {
  auto const width = std::int64_t{heads} * config_.head_dim;
  machine_.linear(memory_.pass.h, w, raw, rows_, config_.dim, width);
  machine_.launch(turn_heads{turns(heads), raw, width, gain, out, scale, epsilon()});
}

/// From the layer's input to its Q and, where somebody reads them, K and V.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::before_attention(strata::route_plan const& plan,
                                                        std::int32_t l) {
  auto const& c = config_;
  auto const& a = layer(l);
  auto const& w = weights_of(l);
  norm(a.x, w.attention_norm, memory_.pass.h, a.attention_scale);
  drop(attention_input(l), memory_.pass.h);
  project_heads(w.wq, w.q_norm, a.raw_q, a.q_scale, a.q, c.q_heads);
  if (plan.layers[l].k.stored) project_heads(w.wk, w.k_norm, a.raw_k, a.k_scale, a.k, c.kv_heads);
  if (plan.layers[l].v.stored) machine_.linear(memory_.pass.h, w.wv, a.v, rows_, c.dim, c.kv_dim());
}

/// From the attention's output to the layer's. Products add the residual before they round.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::after_attention(std::int32_t l) {
  auto const& c = config_;
  auto const& a = layer(l);
  auto const& w = weights_of(l);
  auto const& pass = memory_.pass;
  machine_.linear(a.attended, w.wo, a.middle, rows_, c.q_dim(), c.dim, a.x);
  norm(a.middle, w.mlp_norm, pass.h, a.mlp_scale);
  drop(mlp_input(l), pass.h);
  auto const stride = memory_.mlp_stride;
  machine_.linear(pass.h, w.w_gate, a.gate, rows_, c.dim, stride);
  if (stride == c.mlp) machine_.linear(pass.h, w.w_up, a.up, rows_, c.dim, stride);
  machine_.launch(swiglu{a.gate, a.up, pass.act, rows_, c.mlp, stride});
  machine_.linear(pass.act, w.w_down, output_of(l), rows_, c.mlp, c.dim, a.middle);
}

/// Final norm, logits and, in place, their gradient.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::finish(double weight, bool gradient) {
  auto const& c = config_;
  auto const& a = memory_.pass;
  auto const mean = weight / static_cast<double>(scored_);
  logit_scale_ = mean;
  norm(a.x, weights().final_norm, a.final, a.final_scale);
  machine_.linear(a.final, weights().head, a.logits, rows_, c.dim, c.vocab);
  machine_.launch(token_losses<bfloat16>{a.logits, a.targets, a.losses,
                                         gradient ? a.logits : nullptr, static_cast<float>(mean),
                                         rows_, c.vocab});
  machine_.launch(sum_values{a.losses, a.loss, mean, rows_});
}

// model_forward.hpp says why differences of gradients are what is wanted.
template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::keep_predictions() {
  if (kept_scale_ == 0) kept_ = machine_.template allocate<bfloat16>(most_rows() * config_.vocab);
  kept_scale_ = logit_scale_;
  machine_.launch(
      cast<bfloat16, bfloat16>{memory_.pass.logits, kept_.data(), rows_ * config_.vocab});
}

template <training_machine Machine, class Sampler>
void device_trainee<Machine, Sampler>::learn_from_kept(std::int64_t first_row, double fraction) {
  auto const vocab = std::int64_t{config_.vocab};
  auto const factor = static_cast<float>(-fraction * logit_scale_ / kept_scale_);
  machine_.launch(add_scaled{memory_.pass.logits, kept_.data() + first_row * vocab, factor,
                             memory_.pass.logits, rows_ * vocab});
}

}  // namespace lm::cuda
