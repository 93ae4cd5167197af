// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The training loop, one optimizer step at a time. A step is a pure function of the weights, the
// moments and {seed, step}: routes are drawn with draw_purpose::route, windows of text with
// draw_purpose::data_order and what is dropped with draw_purpose::dropout, so that none moves
// another, and a resumed run needs no generator's state.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include <strata/attention/cpu/attention.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/thread_pool.hpp>

#include "adapters.hpp"
#include "model.hpp"
#include "optimizer.hpp"
#include "training_run.hpp"

namespace lm {

/// The model that trains on the processor. Compiled once in the program, by trainee.cpp: its forward and
/// backward passes are 15 s of g++.
using cpu_trainee = trainee<float, strata::any_sampler, strata::cpu::attention>;
#ifdef STRATA_LM_PARTS
extern template class trainee<float, strata::any_sampler, strata::cpu::attention>;
#endif

/// A run of training on the processor. The text and the threads are the caller's and outlive it.
class trainer final : public training_run {
 public:
  /// Windows of more than 32 pairs of a token and a query head (of a KV head) are not streamed but
  /// taken apart into tiles, whose weights the backward pass repeats to the bit.
  using model_type = cpu_trainee;

  /// A new run with freshly drawn weights. Throws `failure` naming the argument that cannot be.
  trainer(training_options const& options, data_pointer data, strata::thread_pool& pool)
      : training_run(options, std::move(data)),
        model_(options.model, make_sampler(options), largest_pass(options), pool),
        optimizer_(options.lora == 0 ? std::make_unique<adamw<float>>(options.model, pool)
                                     : nullptr),
        adapters_(options.lora > 0
                      ? std::make_unique<adapters>(options.model, options.lora, options.seed, pool)
                      : nullptr) {
    initialise(model_.weights(), options.seed);
    if (adapters_ != nullptr) adapters_->set_base(model_.weights());
    model_.router().stop_source_gradient(options.stop_source_gradient);
  }

  /// The same on the bytes of a text, which outlives it.
  trainer(training_options const& options, corpus const& text, strata::thread_pool& pool)
      : trainer(options, std::make_shared<windowed_bytes>(text, options.sequence_length()), pool) {}

  /// The run that a checkpoint was saved from, at the step where that was. Throws where the file
  /// has no optimizer state or the text is another one.
  static std::unique_ptr<trainer> resume(checkpoint const& saved, data_pointer data,
                                         strata::thread_pool& pool) {
    auto run = std::make_unique<trainer>(saved_options(saved, *data), data, pool);
    run->continue_from(saved);
    return run;
  }
  static std::unique_ptr<trainer> resume(checkpoint const& saved, corpus const& text,
                                         strata::thread_pool& pool) {
    return resume(saved, std::make_shared<windowed_bytes>(text, saved_length(saved)), pool);
  }
  /// Goes on from where another run of the same shape is: its weights, moments, step and time.
  void branch_from(trainer const& other) { continue_from(other); }

  double loss(strata::route_plan const& plan, token_batch const& batch) override {
    return model_.loss(plan, batch);
  }

  model_type& model() noexcept { return model_; }
  /// Not of a run with adapters.
  adamw<float> const& optimizer() const noexcept { return *optimizer_; }

 private:
  all_weights weights_now() const override {
    if (adapters_ != nullptr) return {model_.weights(), {nullptr, nullptr, adapters_->state()}};
    return {model_.weights(), {&optimizer_->first_moment(), &optimizer_->second_moment()}};
  }
  void set_weights(parameters<float> const& weights, moments_view optimizer) override {
    auto const take = [](parameters<float> const* from, parameters<float>& to) {
      if (from == nullptr)
        std::ranges::fill(to.values(), 0.F);
      else
        std::ranges::copy(from->values(), to.values().begin());
    };
    take(&weights, model_.weights());
    if (adapters_ != nullptr) {
      if (optimizer.adapters.base != nullptr) return adapters_->set_state(optimizer.adapters);
      return adapters_->set_base(weights);
    }
    take(optimizer.first, optimizer_->first_moment());
    take(optimizer.second, optimizer_->second_moment());
  }
  strata::result<strata::route_plan> draw(strata::draw_key const& key) const override {
    return model_.router().draw(key);
  }
  void start_gradients() override {
    std::ranges::fill(model_.gradients().values(), 0.F);
    loss_ = 0;
  }
  void add_gradients(batch_part const& part) override {
    auto const mean = model_.forward(part.plan, part.tokens, part.weight, part.dropped);
    if (!std::isfinite(mean)) throw not_finite("loss");
    loss_ += part.weight * mean;
    if (part.teaches) model_.keep_predictions();
    if (part.learns > 0) model_.learn_from_kept(part.first_row, part.learns);
    model_.backward(part.plan);
  }
  void update(step_report& report) override {
    report.loss = loss_;
    auto const by = [&](auto& optimizer) {
      return optimizer.update(model_.weights(), model_.gradients(), options().optimizer, report.lr,
                              steps_done());
    };
    report.gradient_norm = adapters_ != nullptr ? by(*adapters_) : by(*optimizer_);
  }

  model_type model_;
  std::unique_ptr<adamw<float>> optimizer_;  // of all weights
  std::unique_ptr<adapters> adapters_;       // or of these alone
  double loss_ = 0;
};

}  // namespace lm
