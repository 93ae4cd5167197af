// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What lm::cuda::device_server enqueues for a step; included by device_server.hpp.
#pragma once

#include "cuda/device_server.hpp"

namespace lm::cuda {

/// What attention of the largest steps needs: of a prompt, and of one token each. The memory that a
/// view points to does not matter, but that it is aligned.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
std::int64_t device_server<Machine, Storage>::workspace_bytes(Machine& m, model_config const& c,
                                                              std::int32_t sequences,
                                                              std::int32_t max_tokens,
                                                              step_room const& room) {
  static constexpr std::int32_t known_to_the_device = 0;
  served_view<Storage> view;
  std::byte const* const anywhere = nullptr;
  view.k = strata::nhd_blocks<k_codec>(anywhere, max_tokens, c.kv_heads, c.head_dim);
  view.v = strata::nhd_blocks<v_codec>(anywhere, max_tokens, c.kv_heads, c.head_dim);
  view.rows.num_seqs = sequences;
  view.rows.lengths = &known_to_the_device;
  view.kv_heads = c.kv_heads;
  view.k_dim = view.v_dim = c.head_dim;
  served_queries q;
  q.offsets = &known_to_the_device;
  q.num_seqs = sequences;
  q.q_heads = c.q_heads;
  return std::max(m.attention_bytes(q, view, {room.rows, room.rows}),
                  m.attention_bytes(q, view, {std::min(room.rows, sequences), 1}));
}

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::enqueue(step_type& step) {
  x_ = memory_.x;
  h_ = memory_.h;
  machine_.launch(
      gather_rows<bfloat16>{weights_.embedding, memory_.numbers, x_, step.num_rows(), config_.dim});
  for (strata::layer_id l{0}; config_.layers > l.index; ++l.index)
    if (auto const s = run_layer(step, l); !s.ok()) return s;
  enqueue_logits(size(step.logit_rows()));
  return {};
}

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::run_layer(step_type& step, strata::layer_id l) {
  auto const input = size(step.input_rows(l)), live = size(step.live_rows(l));
  if (input == 0) return {};
  norm(x_, layer(l).attention_norm, h_, input);
  auto of = project_input(step, l);
  if (auto const s = append(step, l, of); !s.ok()) return s;
  if (live == 0) return {};  // the tail of a step that wants no logits
  if (live < input) {
    auto const& kept = kept_[static_cast<std::size_t>(l.index)];
    gather(kept, x_, memory_.x, memory_.kept_x);
    gather(kept, h_, memory_.h, memory_.kept_h);
    of.q = project(layer(l).wq, memory_.projected, live, config_.q_dim());
  }
  if (auto s = attend(step, l, of.q); !s.ok()) {
    if (!s.layer.valid()) s.layer = l;
    return s;
  }
  leave(l, live);
  return {};
}

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
void device_server<Machine, Storage>::norm(bfloat16 const* x, bfloat16 const* gain, bfloat16* y,
                                           std::int64_t rows) {
  rms_norm op;
  op.x = x;
  op.gain = gain;
  op.y = y;
  op.rows = rows;
  op.dim = config_.dim;
  op.epsilon = static_cast<float>(config_.norm_epsilon);
  machine_.launch(op);
}

/// The norm of heads, where there is a gain; they do not turn yet.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
turn_heads device_server<Machine, Storage>::heads_of(projected const& from, bfloat16 const* gain,
                                                     bfloat16* to, std::int64_t rows,
                                                     std::int32_t heads) const noexcept {
  turn_heads op;
  op.at.rows = rows;
  op.at.heads = heads;
  op.at.head_dim = config_.head_dim;
  op.raw = from.heads;
  op.raw_stride = from.stride;
  op.gain = gain;
  op.out = to;
  op.epsilon = static_cast<float>(config_.norm_epsilon);
  return op;
}

/// [rows, width] of the normed rows.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
auto device_server<Machine, Storage>::project(bfloat16 const* w, bfloat16* to, std::int64_t rows,
                                              std::int64_t width) -> projected {
  machine_.linear(h_, w, to, rows, config_.dim, width);
  return {to, width};
}

/// K and V of the input rows where somebody stores them, and Q unless rows are about to drop out.
/// Weights that follow each other are one matrix: Q, K and V are one product, or K and V are.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
auto device_server<Machine, Storage>::project_input(step_type& step, strata::layer_id l)
    -> projections {
  auto const& w = layer(l);
  auto const rows = size(step.input_rows(l));
  auto const q_dim = std::int64_t{config_.q_dim()}, kv_dim = std::int64_t{config_.kv_dim()};
  bool const k = !step.k_writers(l).empty(), v = !step.v_writers(l).empty();
  bool const whole = size(step.live_rows(l)) == rows;
  auto* const to = memory_.projected;
  if (whole && k && v && qkv_is_one_product(config_)) {
    auto const all = project(w.wq, to, rows, q_dim + 2 * kv_dim);
    return {all, {all.heads + q_dim, all.stride}, {all.heads + q_dim + kv_dim, all.stride}};
  }
  projections of;
  if (whole) of.q = project(w.wq, to, rows, q_dim);
  auto* const beside = to + rows * q_dim;  // Q has its place, now or later
  if (k && v && kv_is_one_product(config_)) {
    of.k = project(w.wk, beside, rows, 2 * kv_dim);
    of.v = {of.k.heads + kv_dim, of.k.stride};
  } else {
    if (k) of.k = project(w.wk, beside, rows, kv_dim);
    if (v) of.v = project(w.wv, beside + rows * kv_dim, rows, kv_dim);
  }
  return of;
}

/// Into the cache: K after its norm and, on the way, RoPE.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::append(step_type& step, strata::layer_id l,
                                                       projections const& of) {
  if (of.k.heads == nullptr && of.v.heads == nullptr) return {};
  auto k = of.k;
  if (auto const* const gain = layer(l).k_norm; gain != nullptr && k.heads != nullptr) {
    auto const rows = size(step.input_rows(l));
    machine_.launch(heads_of(k, gain, memory_.k, rows, config_.kv_heads));
    k = {memory_.k, config_.kv_dim()};
  }
  auto const k_side = mirror_.k_side(step, l, k.heads, false, k.stride);
  auto const v_side = mirror_.v_side(step, l, of.v.heads, false, of.v.stride);
  return machine_.template append<k_codec, v_codec>(k_side, v_side, turns());
}

/// Moves the rows that stay from one of two places to the other.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
void device_server<Machine, Storage>::gather(kept_rows const& kept, bfloat16*& rows, bfloat16* one,
                                             bfloat16* other) {
  auto* const to = rows == one ? other : one;
  machine_.launch(
      gather_rows<bfloat16>{rows, memory_.numbers + kept.begin, to, kept.count, config_.dim});
  rows = to;
}

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::attend(step_type& step, strata::layer_id l,
                                                       projected const& q) {
  strata::layer_queries<bfloat16> asked;
  asked.q = memory_.q;
  asked.out = memory_.attended;
  asked.q_heads = config_.q_heads;
  asked.rule = rule_;
  auto const rows = mirror_.queries(step, l, asked);
  auto const view = mirror_.view(step, l);
  if (!rows.ok()) return rows.state();
  if (!view.ok()) return view.state();
  auto const live = step.live_rows(l).size();
  auto turned =
      heads_of(q, layer(l).q_norm, memory_.q, static_cast<std::int64_t>(live), config_.q_heads);
  turned.at.cos = turns().cos;
  turned.at.sin = turns().sin;
  turned.at.positions = rows->positions;
  machine_.launch(turned);
  strata::cuda::launch_bounds bounds;
  bounds.rows = static_cast<std::int32_t>(live);
  auto const offsets = step.live_offsets(l);
  for (std::size_t s = 1; s < offsets.size(); ++s)
    bounds.rows_per_seq = std::max(bounds.rows_per_seq, offsets[s] - offsets[s - 1]);
  return machine_.attend(*rows, *view, bounds,
                         {workspace_.data(), static_cast<std::size_t>(workspace_bytes_)});
}

/// From the attention's output to the next layer's input: x += o Wo^T, x += MLP(norm(x)). Products
/// add the residual before they round.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
void device_server<Machine, Storage>::leave(strata::layer_id l, std::int64_t rows) {
  auto const dim = std::int64_t{config_.dim}, mlp = std::int64_t{config_.mlp};
  auto const& w = layer(l);
  machine_.linear(memory_.attended, w.wo, x_, rows, config_.q_dim(), dim, x_);
  norm(x_, w.mlp_norm, h_, rows);
  projected gate, up;
  if (mlp_is_one_product(config_)) {
    gate = project(w.w_gate, memory_.mlp, rows, 2 * mlp);
    up = {gate.heads + mlp, gate.stride};
  } else {
    gate = project(w.w_gate, memory_.mlp, rows, mlp);
    up = project(w.w_up, memory_.mlp + rows * mlp, rows, mlp);
  }
  machine_.launch(swiglu{gate.heads, up.heads, memory_.act, rows, mlp, gate.stride});
  machine_.linear(memory_.act, w.w_down, x_, rows, mlp, dim, x_);
}

/// Final norm and logits of the rows that want them, a slab at a time on their way to the host.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
void device_server<Machine, Storage>::enqueue_logits(std::int64_t rows) {
  auto const dim = std::int64_t{config_.dim}, vocab = std::int64_t{config_.vocab};
  if (rows == 0) return;
  if (auto const& kept = kept_.back(); kept.begin >= 0) gather(kept, x_, memory_.x, memory_.kept_x);
  norm(x_, weights_.final_norm, h_, rows);
  for (std::int64_t done = 0; done < rows; done += logit_slab_) {
    auto const now = std::min(rows - done, logit_slab_);
    machine_.linear(h_ + done * dim, weights_.head, memory_.logits, now, dim, vocab);
    machine_.download(
        static_cast<float const*>(memory_.logits),
        std::span(logits_.data() + done * vocab, static_cast<std::size_t>(now * vocab)));
  }
}

}  // namespace lm::cuda
