// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The model that trains: forward and backward of a batch under a route plan, through
// strata::router. What to look at as an engine's author: `computes_k`, `attend` and the order of
// `backward`; the rest is an ordinary decoder.
//
// Everything but attention works row by row, so a thread takes a slab of 128 rows through all of it
// while it lies in its L2 cache: per layer there are two phases in forward (attention; from its
// output to the next layer's Q, K, V) and three in backward (the same way back; all weight
// gradients, over all rows; attention).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/plan.hpp>
#include <strata/router.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/thread_pool.hpp>

#include "activations.hpp"
#include "dropout.hpp"
#include "failure.hpp"
#include "gemm.hpp"
#include "layers.hpp"
#include "parameters.hpp"
#include "token_batch.hpp"

namespace lm {

/// A model in training: its weights, their gradients and the memory for one pass. The threads are
/// the caller's and outlive it.
template <class T, class Sampler = strata::any_sampler, class Kernel = strata::reference_attention>
class trainee {
 public:
  /// For passes of up to `most.num_seqs * most.length` tokens in sequences of up to `most.length`.
  /// Weights are zero until `initialise` or a checkpoint sets them. Throws where memory is short.
  trainee(model_config const& config, Sampler const& sampler, strata::pass_shape most,
          strata::thread_pool& pool)
      : pool_(pool),
        router_(sampler, config.classes()),
        weights_(config),
        gradients_(config),
        most_(most),
        rope_(most.length, config),
        memory_(config, std::int64_t{most.num_seqs} * most.length, pool.num_shares()),
        loss_of_slab_(
            static_cast<std::size_t>(num_slabs(std::int64_t{most.num_seqs} * most.length))) {
    use_single_threaded_blas();
    for (auto const& a : memory_.layer) tensors_.push_back({a.k, a.v, a.dk, a.dv});
    auto const bytes =
        router_.workspace_bytes({0}, queries(strata::layer_id{0}), most, pool.num_shares());
    require(bytes.state(), "attention");
    products_.reserve(8);
    workspace_ = aligned_buffer<std::byte>(*bytes);
  }

  model_config const& config() const noexcept { return weights_.config(); }
  parameters<T>& weights() noexcept { return weights_; }
  parameters<T> const& weights() const noexcept { return weights_; }
  parameters<T>& gradients() noexcept { return gradients_; }
  strata::router<Sampler, Kernel>& router() noexcept { return router_; }
  strata::router<Sampler, Kernel> const& router() const noexcept { return router_; }
  /// What the last pass left, for tests and for recomputation.
  activations<T> const& memory() const noexcept { return memory_; }

  /// Computes the K and V that nobody reads too, and their gradients, which are zero: the same
  /// weights for more work. A test's switch.
  void compute_unread(bool compute) noexcept { compute_unread_ = compute; }

  /// Mean loss of a batch, in nats per token. Throws where the plan is another model's.
  double loss(strata::route_plan const& plan, token_batch const& batch) {
    start(batch, {});
    run_layers(plan, 0, config().layers, finish_slab::loss);
    return mean_loss();
  }

  /// The same, and all that `backward` needs, of a pass that drops some of its numbers. `weight`
  /// times the mean loss is what it derives.
  double forward(strata::route_plan const& plan, token_batch const& batch, double weight = 1,
                 dropout const& dropped = {}) {
    start(batch, dropped);
    logit_scale_ = static_cast<T>(weight / static_cast<double>(scored_));
    run_layers(plan, 0, config().layers, finish_slab::gradient);
    return mean_loss();
  }

  /// After `forward`: keeps what it predicts, for passes of the same rows that learn from it. The
  /// memory for that is taken at the first call.
  void keep_predictions();
  /// After `forward` of rows `first_row` and so on of those kept: `fraction` of what `backward`
  /// derives becomes the cross-entropy to the distribution kept (which learns nothing from it), the
  /// rest stays that to the targets.
  void learn_from_kept(std::int64_t first_row, double fraction);

  /// Runs layers first .. last - 1 of the forward pass again, from the input of `first`. A layer
  /// may read sources below `first`: their K and V are inputs of the segment as much as its x, and
  /// must be as forward left them.
  void recompute(strata::route_plan const& plan, std::int32_t first, std::int32_t last) {
    run_layers(plan, first, last, finish_slab::nothing);
  }

  /// Adds the gradients of the batch that `forward` saw last, under the same plan.
  void backward(strata::route_plan const& plan);

 private:
  enum class finish_slab { nothing, loss, gradient };

  // What a layer computes (law 7): K and V that somebody reads.
  bool computes_k(strata::route_plan const& plan, std::int32_t l) const noexcept {
    return plan.layers[l].k.stored || compute_unread_;
  }
  bool computes_v(strata::route_plan const& plan, std::int32_t l) const noexcept {
    return plan.layers[l].v.stored || compute_unread_;
  }

  strata::layer_queries<T> queries(strata::layer_id l) const noexcept {
    auto const& a = memory_.layer[static_cast<std::size_t>(l.index)];
    strata::layer_queries<T> q;
    q.q = a.q;
    q.out = a.attended;
    q.lse = a.lse;
    q.q_heads = config().q_heads;
    return q;
  }
  std::span<std::byte> workspace() noexcept { return workspace_.values(); }

  layer_activations<T> const& layer(std::int32_t l) const noexcept {
    return memory_.layer[static_cast<std::size_t>(l)];
  }
  layer_weights<T const> const& weights_of(std::int32_t l) const noexcept {
    return weights().weights().layer[static_cast<std::size_t>(l)];
  }
  layer_weights<T> const& gradients_of(std::int32_t l) noexcept {
    return gradients_.weights().layer[static_cast<std::size_t>(l)];
  }
  /// Where the output of layer l goes.
  T* output_of(std::int32_t l) const noexcept {
    return l + 1 < config().layers ? layer(l + 1).x : memory_.pass.x;
  }
  slab_scratch<T> const& scratch(slab s) const noexcept {
    return memory_.scratch[static_cast<std::size_t>(s.thread)];
  }

  void start(token_batch const& batch, dropout const& dropped);
  void run_layers(strata::route_plan const& plan, std::int32_t first, std::int32_t last,
                  finish_slab finish);
  void before_attention(strata::route_plan const& plan, std::int32_t l, slab s) noexcept;
  void after_attention(std::int32_t l, slab s) noexcept;
  void project_heads(T const* h, T const* w, T const* gain, T* raw, T* scale, T* out,
                     std::int32_t heads, slab s) noexcept;
  void finish(slab s, finish_slab what) noexcept;
  double mean_loss() const noexcept;

  void finish_backward(slab s) noexcept;
  void after_attention_backward(std::int32_t l, slab s) noexcept;
  void before_attention_backward(strata::route_plan const& plan, std::int32_t l, slab s) noexcept;
  void heads_backward(T* d, T const* gain, T const* raw, T const* scale, T* d_gain,
                      std::int32_t heads, slab s) noexcept;
  void list_mlp_gradients(std::int32_t l);
  void list_attention_gradients(strata::route_plan const& plan, std::int32_t l);
  void add_norm_gradient(T const* parts, T* gradient, std::int64_t dim) noexcept;

  strata::thread_pool& pool_;
  strata::router<Sampler, Kernel> router_;
  parameters<T> weights_;
  parameters<T> gradients_;
  strata::pass_shape most_;
  rope_table<T> rope_;
  activations<T> memory_;
  std::vector<strata::layer_tensors<T>> tensors_;  // [layers]
  aligned_buffer<std::byte> workspace_;
  std::vector<double> loss_of_slab_;  // sums of nats
  std::vector<weight_gradient<T>> products_;
  token_batch batch_;
  dropout dropped_;  // of the last pass
  std::int64_t rows_ = 0;
  std::int64_t scored_ = 1;
  aligned_buffer<T> kept_;  // [rows, vocab], gradients of logits, times 1 / kept_scale_
  T kept_scale_ = 1;
  T logit_scale_ = 0;
  bool compute_unread_ = false;
};

}  // namespace lm

#include "model_backward.hpp"
#include "model_forward.hpp"
