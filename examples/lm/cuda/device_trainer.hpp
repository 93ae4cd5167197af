// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A run of training on a device. A step is enqueued whole; the host waits once, for its loss and
// the norm of its gradient.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include <strata/routing/any_sampler.hpp>

#include "cuda/device_model.hpp"
#include "training_run.hpp"

namespace lm::cuda {

/// The text and the machine are the caller's and outlive it.
template <training_machine Machine>
class device_trainer : public training_run {
 public:
  /// A new run, from the weights that a run on the processor would draw.
  device_trainer(training_options const& options, corpus const& text, Machine& m)
      : training_run(options, text),
        model_(m, options.model, make_sampler(options), largest_pass(options)),
        copy_(options.model) {
    initialise(copy_.weights, options.seed);
    model_.state().set_masters(copy_.weights.values());
    model_.router().stop_source_gradient(options.stop_source_gradient);
  }

  static std::unique_ptr<device_trainer> resume(checkpoint const& saved, corpus const& text,
                                                Machine& m) {
    auto run = std::make_unique<device_trainer>(saved_options(saved, text), text, m);
    run->continue_from(saved);
    return run;
  }

  /// Bytes of the device that a run takes, but for its attention's.
  static std::int64_t bytes(training_options const& o) {
    return device_trainee<Machine>::bytes(o.model, largest_pass(o));
  }

 private:
  /// Of the device's weights and moments, for files.
  struct host_copy {
    explicit host_copy(model_config const& c) : weights(c), first(c), second(c) {}
    parameters<float> weights, first, second;
  };

  all_weights weights_now() const override {
    model_.state().get(copy_.weights.values(), copy_.first.values(), copy_.second.values());
    return {copy_.weights, {&copy_.first, &copy_.second}};
  }
  void set_weights(parameters<float> const& weights, moments_view optimizer) override {
    parameters<float> const zeros(weights.config());
    auto const of = [&](parameters<float> const* p) {
      return (p != nullptr ? *p : zeros).values();
    };
    model_.state().set_masters(weights.values());
    model_.state().set_moments(of(optimizer.first), of(optimizer.second));
  }
  strata::result<strata::route_plan> draw(strata::draw_key const& key) const override {
    return model_.router().draw(key);
  }
  void start_gradients() override { model_.start_step(); }
  void add_gradients(strata::route_plan const& plan, token_batch const& tokens,
                     double weight) override {
    model_.forward(plan, tokens, weight);
    model_.backward(plan);
  }
  /// A loss that is not finite makes a gradient that is not, and then the device leaves the weights.
  void update(step_report& report) override {
    model_.state().update(options().optimizer, report.lr, steps_done());
    report.loss = model_.step_loss();
    report.gradient_norm = model_.state().norm();
    if (!std::isfinite(report.loss)) throw not_finite("loss");
    if (!std::isfinite(report.gradient_norm)) throw not_finite("gradient");
  }

  // To copy weights to the host changes nothing, but takes the machine's turn.
  device_trainee<Machine> mutable model_;
  host_copy mutable copy_;
};

}  // namespace lm::cuda
