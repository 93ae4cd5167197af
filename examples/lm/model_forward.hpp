// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The forward half of lm::trainee; included by model.hpp.
#pragma once

#include "model.hpp"

namespace lm {

template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::start(token_batch const& batch, dropout const& dropped) {
  require_batch(batch, most_, config());
  batch_ = batch;
  dropped_ = dropped;
  rows_ = batch.rows();
  scored_ = batch.scored();
}

template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::run_layers(strata::route_plan const& plan, std::int32_t first,
                                             std::int32_t last, finish_slab what) {
  auto const shape = strata::pass_shape{batch_.num_seqs, batch_.length};
  for_slabs(pool_, rows_, [&](slab s) {
    if (first == 0)
      embed(batch_.inputs + s.begin, weights().weights().embedding,
            layer(0).x + s.begin * config().dim, s.count, config().dim);
    before_attention(plan, first, s);
  });
  for (auto l = first; l < last; ++l) {
    require(router_.forward(pool_, plan, strata::layer_id{l}, queries(strata::layer_id{l}),
                            tensors_, shape, workspace()),
            "attention");
    for_slabs(pool_, rows_, [&](slab s) {
      after_attention(l, s);
      if (l + 1 < last)
        before_attention(plan, l + 1, s);
      else
        finish(s, what);
    });
  }
}

/// From the layer's input to its Q and, where somebody reads them, K and V.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::before_attention(strata::route_plan const& plan, std::int32_t l,
                                                   slab s) noexcept {
  auto const& c = config();
  auto const& a = layer(l);
  auto const& w = weights_of(l);
  T* const h = scratch(s).h;
  rms_norm(a.x + s.begin * c.dim, w.attention_norm, h, a.attention_scale + s.begin, s.count, c.dim,
           c.norm_epsilon);
  drop(dropped_, attention_input(l), s.begin * c.dim, h, s.count * c.dim);
  project_heads(h, w.wq, w.q_norm, a.raw_q, a.q_scale, a.q, c.q_heads, s);
  if (computes_k(plan, l)) project_heads(h, w.wk, w.k_norm, a.raw_k, a.k_scale, a.k, c.kv_heads, s);
  if (computes_v(plan, l))
    linear_slab(h, w.wv, a.v + s.begin * c.kv_dim(), s.count, c.dim, c.kv_dim());
}

/// Projection, norm (where there is a gain) and RoPE of query or key heads.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::project_heads(T const* h, T const* w, T const* gain, T* raw,
                                                T* scale, T* out, std::int32_t heads,
                                                slab s) noexcept {
  auto const& c = config();
  auto const width = std::int64_t{heads} * c.head_dim;
  T* const turned = out + s.begin * width;
  T* const projected = gain == nullptr ? turned : raw + s.begin * width;
  linear_slab(h, w, projected, s.count, c.dim, width);
  if (gain != nullptr)
    rms_norm(projected, gain, turned, scale + s.begin * heads, s.count * heads, c.head_dim,
             c.norm_epsilon);
  rope(rope_, turned, s.count, heads,
       [&](std::int64_t r) { return (s.begin + r) % batch_.length; });
}

/// From the attention's output to the layer's.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::after_attention(std::int32_t l, slab s) noexcept {
  auto const& c = config();
  auto const& a = layer(l);
  auto const& w = weights_of(l);
  auto const [h, act] = scratch(s);
  auto const at = s.begin * c.dim;
  T* const gate = a.gate + s.begin * c.mlp;
  T* const up = a.up + s.begin * c.mlp;
  T* const middle = a.middle + at;
  T* const out = output_of(l) + at;
  copy(a.x + at, middle, s.count * c.dim);
  linear_slab(a.attended + s.begin * c.q_dim(), w.wo, middle, s.count, c.q_dim(), c.dim, T{1});
  rms_norm(middle, w.mlp_norm, h, a.mlp_scale + s.begin, s.count, c.dim, c.norm_epsilon);
  drop(dropped_, mlp_input(l), at, h, s.count * c.dim);
  linear_slab(h, w.w_gate, gate, s.count, c.dim, c.mlp);
  linear_slab(h, w.w_up, up, s.count, c.dim, c.mlp);
  swiglu(gate, up, act, s.count * c.mlp);
  copy(middle, out, s.count * c.dim);
  linear_slab(act, w.w_down, out, s.count, c.mlp, c.dim, T{1});
}

/// Final norm, logits and, in place, their gradient.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::finish(slab s, finish_slab what) noexcept {
  if (what == finish_slab::nothing) return;
  auto const& c = config();
  auto const& a = memory_.pass;
  auto const& w = weights().weights();
  T* const h = a.final + s.begin * c.dim;
  T* const logits = a.logits + s.begin * c.vocab;
  rms_norm(a.x + s.begin * c.dim, w.final_norm, h, a.final_scale + s.begin, s.count, c.dim,
           c.norm_epsilon);
  linear_slab(h, w.head, logits, s.count, c.dim, c.vocab);
  double sum = 0;
  for (std::int64_t r = 0; r < s.count; ++r) {
    auto const token = batch_.targets[s.begin + r];
    T* const row = logits + r * c.vocab;
    if (token == no_target)
      std::fill_n(row, c.vocab, T{0});
    else if (what == finish_slab::gradient)
      sum += token_loss_and_gradient(row, c.vocab, token, logit_scale_);
    else
      sum += token_loss(row, c.vocab, token);
  }
  loss_of_slab_[static_cast<std::size_t>(s.index)] = sum;
}

template <class T, class Sampler, class Kernel>
double trainee<T, Sampler, Kernel>::mean_loss() const noexcept {
  double sum = 0;
  for (std::int64_t i = 0; i < num_slabs(rows_); ++i)
    sum += loss_of_slab_[static_cast<std::size_t>(i)];
  return sum / static_cast<double>(scored_);
}

// The gradient of a row's logits is s (p - t): p what is predicted, t the target, s the row's weight.
// With (1 - f) t + f k for the target, k what was kept, it is s (p - t) - f s (k - t), and s (k - t)
// is the gradient that was there when k was predicted, but for the weight of its pass.
template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::keep_predictions() {
  auto const count = rows_ * config().vocab;
  if (kept_.size() < count)
    kept_ = aligned_buffer<T>(std::int64_t{most_.num_seqs} * most_.length * config().vocab);
  kept_scale_ = logit_scale_;
  for_slabs(pool_, rows_, [&](slab s) {
    auto const at = s.begin * config().vocab;
    copy(memory_.pass.logits + at, kept_.data() + at, s.count * config().vocab);
  });
}

template <class T, class Sampler, class Kernel>
void trainee<T, Sampler, Kernel>::learn_from_kept(std::int64_t first_row, double fraction) {
  auto const factor = static_cast<T>(fraction) * (logit_scale_ / kept_scale_);
  for_slabs(pool_, rows_, [&](slab s) {
    auto const vocab = std::int64_t{config().vocab};
    T* const d = memory_.pass.logits + s.begin * vocab;
    T const* const kept = kept_.data() + (first_row + s.begin) * vocab;
    for (std::int64_t i = 0; i < s.count * vocab; ++i) d[i] -= factor * kept[i];
  });
}

}  // namespace lm
