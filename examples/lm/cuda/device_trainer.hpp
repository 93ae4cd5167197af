// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A run of training on a device. A step is enqueued whole; the host waits once, for its loss and
// the norm of its gradient.
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <strata/routing/any_sampler.hpp>

#include "cuda/device_adapters.hpp"
#include "cuda/device_model.hpp"
#include "training_run.hpp"

namespace lm::cuda {

/// The text and the machine are the caller's and outlive it.
template <training_machine Machine>
class device_trainer : public training_run {
 public:
  /// A new run, from the weights that a run on the processor would draw.
  device_trainer(training_options const& options, data_pointer data, Machine& m)
      : training_run(options, std::move(data)),
        model_(m, options.model, make_sampler(options), largest_pass(options)),
        copy_(options.model) {
    initialise(copy_.weights, options.seed);
    model_.state().set_masters(copy_.weights.values());
    if (options.lora > 0) {
      adapters_ =
          std::make_unique<device_adapters<Machine>>(m, options.model, options.lora, options.seed);
      adapters_->set_base(model_.state());
      copy_.adapt(options.lora);
    }
    model_.router().stop_source_gradient(options.stop_source_gradient);
  }

  /// The same on the bytes of a text, which outlives it.
  device_trainer(training_options const& options, corpus const& text, Machine& m)
      : device_trainer(options, std::make_shared<windowed_bytes>(text, options.sequence_length()),
                       m) {}

  static std::unique_ptr<device_trainer> resume(checkpoint const& saved, corpus const& text,
                                                Machine& m) {
    auto const data = std::make_shared<windowed_bytes>(text, saved_length(saved));
    auto run = std::make_unique<device_trainer>(saved_options(saved, *data), data, m);
    run->continue_from(saved);
    return run;
  }

  double loss(strata::route_plan const& plan, token_batch const& batch) override {
    return model_.loss(plan, batch);
  }

  /// Bytes of the device that a run takes, but for its attention's.
  static std::int64_t bytes(training_options const& o) {
    auto const most = largest_pass(o);
    auto const kept = o.distill > 0 ? 2 * std::int64_t{most.num_seqs} * most.length * o.model.vocab
                                    : std::int64_t{0};
    auto const adapted =
        o.lora > 0 ? device_adapters<Machine>::bytes(o.model, o.lora) : std::int64_t{0};
    return device_trainee<Machine>::bytes(o.model, most) + kept + adapted;
  }

 private:
  /// Of the device's weights and moments, for files.
  struct host_copy {
    explicit host_copy(model_config const& c) : weights(c), first(c), second(c) {}
    void adapt(std::int64_t rank) {
      auto const size =
          static_cast<std::size_t>(adapter_table(weights.config(), rank).tensors.size);
      std::vector<float> const zeros(size);
      adapters = adapter_state{rank, parameters<float>(weights.config()), zeros, zeros, zeros};
    }
    parameters<float> weights, first, second;
    std::optional<adapter_state> adapters;
  };

  all_weights weights_now() const override {
    model_.state().get(copy_.weights.values(), copy_.first.values(), copy_.second.values());
    if (adapters_ != nullptr) {
      adapters_->get(*copy_.adapters);
      return {copy_.weights, {nullptr, nullptr, view_of(*copy_.adapters)}};
    }
    return {copy_.weights, {&copy_.first, &copy_.second}};
  }
  void set_weights(parameters<float> const& weights, moments_view optimizer) override {
    parameters<float> const zeros(weights.config());
    auto const of = [&](parameters<float> const* p) {
      return (p != nullptr ? *p : zeros).values();
    };
    model_.state().set_masters(weights.values());
    if (adapters_ != nullptr) {
      if (optimizer.adapters.base != nullptr) return adapters_->set_state(optimizer.adapters);
      return adapters_->set_base(model_.state());
    }
    model_.state().set_moments(of(optimizer.first), of(optimizer.second));
  }
  strata::result<strata::route_plan> draw(strata::draw_key const& key) const override {
    return model_.router().draw(key);
  }
  void start_gradients() override { model_.start_step(); }
  void add_gradients(batch_part const& part) override {
    model_.forward(part.plan, part.tokens, part.weight, part.dropped);
    if (part.teaches) model_.keep_predictions();
    if (part.learns > 0) model_.learn_from_kept(part.first_row, part.learns);
    model_.backward(part.plan);
  }
  /// A loss that is not finite makes a gradient that is not, and then the device leaves the weights.
  void update(step_report& report) override {
    auto& state = model_.state();
    auto const& o = options().optimizer;
    if (adapters_ != nullptr)
      adapters_->update(state, o, report.lr, steps_done());
    else
      state.update(o, report.lr, steps_done());
    report.loss = model_.step_loss();
    report.gradient_norm = adapters_ != nullptr ? adapters_->norm() : state.norm();
    if (!std::isfinite(report.loss)) throw not_finite("loss");
    if (!std::isfinite(report.gradient_norm)) throw not_finite("gradient");
  }

  // To copy weights to the host changes nothing, but takes the machine's turn.
  device_trainee<Machine> mutable model_;
  std::unique_ptr<device_adapters<Machine>> adapters_;  // null: all weights are trained
  host_copy mutable copy_;
};

}  // namespace lm::cuda
