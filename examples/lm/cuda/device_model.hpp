// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The model that trains on a device: model.hpp's passes under a route plan, whole batches at a time.
// Numbers are bf16, all sums float; gradients of weights, and of K and V, which several readers add
// to, stay float. What nobody reads is not projected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/plan.hpp>
#include <strata/router.hpp>
#include <strata/routing/any_sampler.hpp>

#include "cuda/device_angles.hpp"
#include "cuda/device_parameters.hpp"
#include "cuda/heads.hpp"
#include "cuda/losses.hpp"
#include "cuda/machine.hpp"
#include "cuda/norm.hpp"
#include "cuda/pass_memory.hpp"
#include "cuda/token_groups.hpp"
#include "failure.hpp"
#include "token_batch.hpp"

namespace lm::cuda {

/// A model in training. The machine is the caller's and outlives it. Calls enqueue, but for those
/// that say that they wait.
template <training_machine Machine, class Sampler = strata::any_sampler>
class device_trainee {
 public:
  /// The router draws and says who reads whom; attention is the machine's.
  using router_type = strata::router<Sampler, strata::reference_attention>;

  /// For passes of up to `most.num_seqs * most.length` tokens in sequences of up to `most.length`.
  device_trainee(Machine& m, model_config const& config, Sampler const& sampler,
                 strata::pass_shape most)
      : machine_(m),
        config_(config),
        router_(sampler, config.classes()),
        state_(m, config),
        most_(most),
        arena_(m.template allocate<std::byte>(pass_memory::bytes(config, most_rows()))),
        memory_(config, most_rows(), arena_.data()),
        angles_(m, config, most.length) {
    for (auto const& a : memory_.layer) tensors_.push_back({a.k, a.v, a.dk, a.dv});
    auto const c = call(*make_plan(strata::identity_map(config.layers), config.classes()), 0, most);
    lm::require(m.reserve_attention(c.q, c.view), "attention");
    start_step();
  }

  static std::int64_t bytes(model_config const& config, strata::pass_shape most) {
    return training_state<Machine>::bytes(config) +
           pass_memory::bytes(config, std::int64_t{most.num_seqs} * most.length);
  }

  model_config const& config() const noexcept { return config_; }
  router_type& router() noexcept { return router_; }
  training_state<Machine>& state() noexcept { return state_; }

  /// Zero gradients, and no loss yet.
  void start_step() {
    state_.start_gradients();
    machine_.fill_zero(memory_.pass.loss, 1);
  }
  /// Adds `weight` times the mean loss of a batch to the step's, and keeps what `backward` needs.
  void forward(strata::route_plan const& plan, token_batch const& batch, double weight = 1,
               dropout const& dropped = {}) {
    dropped_ = dropped;
    run_forward(plan, batch, weight, true);
  }
  /// As model.hpp has them.
  void keep_predictions();
  void learn_from_kept(std::int64_t first_row, double fraction);
  /// Adds the gradients of the batch that `forward` saw last, under the same plan.
  void backward(strata::route_plan const& plan);
  /// The step's loss so far, in nats per token. Waits.
  double step_loss() {
    double sum = 0;
    machine_.download(static_cast<double const*>(memory_.pass.loss), std::span(&sum, 1));
    machine_.wait();
    return sum;
  }
  /// Mean loss of a batch, without a step. Waits.
  double loss(strata::route_plan const& plan, token_batch const& batch) {
    machine_.fill_zero(memory_.pass.loss, 1);
    dropped_ = {};
    run_forward(plan, batch, 1, false);
    return step_loss();
  }

 private:
  template <class T>
  using buffer = decltype(std::declval<Machine&>().template allocate<T>(0));

  std::int64_t most_rows() const noexcept { return std::int64_t{most_.num_seqs} * most_.length; }
  layer_memory const& layer(std::int32_t l) const noexcept {
    return memory_.layer[static_cast<std::size_t>(l)];
  }
  model_weights<bfloat16 const> const& weights() const noexcept {
    return state_.weights().weights();
  }
  layer_weights<bfloat16 const> const& weights_of(std::int32_t l) const noexcept {
    return weights().layer[static_cast<std::size_t>(l)];
  }
  layer_weights<float> const& gradients_of(std::int32_t l) const noexcept {
    return state_.gradient_weights().layer[static_cast<std::size_t>(l)];
  }
  /// Where the output of layer l goes.
  bfloat16* output_of(std::int32_t l) const noexcept {
    return l + 1 < config_.layers ? layer(l + 1).x : memory_.pass.x;
  }
  float epsilon() const noexcept { return static_cast<float>(config_.norm_epsilon); }

  strata::routed_call<bfloat16> call(strata::route_plan const& plan, std::int32_t l,
                                     strata::pass_shape shape) const {
    auto const& a = layer(l);
    strata::layer_queries<bfloat16> const q{a.q, a.attended, a.lse, config_.q_heads};
    auto const made = router_.call(plan, strata::layer_id{l}, q, tensors_, shape);
    lm::require(made.state(), "attention");
    return *made;
  }
  strata::pass_shape shape() const noexcept { return {batch_.num_seqs, batch_.length}; }

  head_turns turns(std::int32_t heads) const noexcept {
    head_turns t;
    t.cos = angles_.cos();
    t.sin = angles_.sin();
    t.length = batch_.length;
    t.rows = rows_;
    t.heads = heads;
    t.head_dim = config_.head_dim;
    return t;
  }

  void start(token_batch const& batch, bool grouped);
  void run_forward(strata::route_plan const& plan, token_batch const& batch, double weight,
                   bool gradient);
  void norm(bfloat16 const* x, bfloat16 const* gain, bfloat16* y, float* scale);
  /// Of what is in pass.h or pass.d_h.
  template <class T>
  void drop(std::uint32_t place, T* x) {
    if (dropped_.drops()) machine_.launch(drop_numbers<T>{dropped_, place, x, rows_ * config_.dim});
  }
  void project_heads(bfloat16 const* w, bfloat16 const* gain, bfloat16* raw, float* scale,
                     bfloat16* out, std::int32_t heads);
  void before_attention(strata::route_plan const& plan, std::int32_t l);
  void after_attention(std::int32_t l);
  void finish(double weight, bool gradient);

  template <class Term>
  void add_gain_gradient(Term const& term, std::int64_t rows, std::int64_t columns,
                         float* gradient);
  void norm_backward(bfloat16 const* x, float const* scale, bfloat16 const* gain,
                     bfloat16 const* residual, bfloat16* dx, float* gain_gradient);
  template <class D>
  void heads_backward(D const* d, bfloat16 const* raw, float const* scale, bfloat16 const* gain,
                      float* gain_gradient, bfloat16* d_raw, std::int32_t heads);
  void finish_backward();
  void after_attention_backward(std::int32_t l);
  void attention_backward(strata::route_plan const& plan, std::int32_t l);
  void before_attention_backward(strata::route_plan const& plan, std::int32_t l);

  Machine& machine_;
  model_config config_;
  router_type router_;
  training_state<Machine> state_;
  strata::pass_shape most_;
  buffer<std::byte> arena_;
  pass_memory memory_;
  device_angles<Machine> angles_;
  std::vector<strata::layer_tensors<bfloat16>> tensors_;  // [layers]
  std::vector<std::int32_t> inputs_, targets_;            // of the batch
  token_groups groups_;
  token_batch batch_;
  dropout dropped_;  // of the last pass
  std::int64_t rows_ = 0, scored_ = 1;
  buffer<bfloat16> kept_;  // [most rows, vocab], gradients of logits; taken at the first call
  double logit_scale_ = 0, kept_scale_ = 0;
};

}  // namespace lm::cuda

#include "cuda/device_model_backward.hpp"
#include "cuda/device_model_forward.hpp"
