// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The training loop, one optimizer step at a time. A step is a pure function of the weights, the
// moments and {seed, step}: routes are drawn with draw_purpose::route and windows of text with
// draw_purpose::data_order, so that neither moves the other, and a resumed run needs no generator's
// state.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/plan.hpp>
#include <strata/random.hpp>
#include <strata/thread_pool.hpp>

#include "checkpoint.hpp"
#include "model.hpp"
#include "optimizer.hpp"
#include "progress.hpp"
#include "text.hpp"
#include "training_options.hpp"

namespace lm {

/// What one step did.
struct step_report {
  std::int64_t step = 0;  ///< counted from 0
  double loss = 0;        ///< mean, nats per token, before the step
  double lr = 0;
  double gradient_norm = 0;  ///< before clipping
  std::int64_t tokens = 0;
  double seconds = 0;
};

/// A run of training. The text and the threads are the caller's and outlive it.
class trainer {
 public:
  /// Windows of more than 32 pairs of a token and a query head (of a KV head) are not streamed but
  /// taken apart into tiles, whose weights the backward pass repeats to the bit.
  using model_type = trainee<float, strata::any_sampler, strata::cpu::attention>;

  /// A new run with freshly drawn weights. Throws `failure` naming the argument that cannot be.
  trainer(training_options const& options, corpus const& text, strata::thread_pool& pool)
      : options_(checked(options)),
        text_(text),
        windows_(text, std::int64_t{options.model.context} + 1),
        model_(options.model, make_sampler(options), largest_pass(options), pool),
        optimizer_(options.model, pool),
        plans_(static_cast<std::size_t>(options.draws_per_step)),
        inputs_(static_cast<std::size_t>(options.tokens_per_step())),
        targets_(inputs_.size()) {
    initialise(model_.weights(), options.seed);
    model_.router().stop_source_gradient(options.stop_source_gradient);
  }

  /// The run that a checkpoint was saved from, at the step where that was. Throws where the file
  /// has no optimizer state or the text is another one.
  static std::unique_ptr<trainer> resume(checkpoint const& saved, corpus const& text,
                                         strata::thread_pool& pool);

  /// Starts from other weights of the same shape; the run stays at step 0.
  void start_from(parameters<float> const& weights);
  /// Goes on from where another run of the same shape is: its weights, moments, step and time.
  void branch_from(trainer const& other);

  training_options const& options() const noexcept { return options_; }
  model_type& model() noexcept { return model_; }
  adamw<float> const& optimizer() const noexcept { return optimizer_; }
  std::int64_t steps_done() const noexcept { return step_; }
  bool finished() const noexcept { return step_ >= options_.steps; }
  /// Seconds spent in steps, those before a resumption too.
  double seconds() const noexcept { return seconds_; }
  /// The plans of the last step's micro-batches.
  std::vector<strata::route_plan> const& plans() const noexcept { return plans_; }

  /// One optimizer step. Throws where loss or gradient is not finite; weights, moments and step are
  /// then those before it.
  step_report step();

  void save(std::string const& path) const;

 private:
  static training_options const& checked(training_options const& options) {
    if (auto const wrong = options.check(); !wrong.empty())
      throw failure(wrong, exit_code::wrong_use);
    return options;
  }
  static strata::pass_shape largest_pass(training_options const& o) noexcept {
    return {(o.batch + o.draws_per_step - 1) / o.draws_per_step, o.model.context};
  }
  void fill_batch() noexcept;
  double add_gradients();

  training_options options_;
  corpus const& text_;
  window_sampler windows_;
  model_type model_;
  adamw<float> optimizer_;
  std::vector<strata::route_plan> plans_;       // [draws_per_step]
  std::vector<std::uint8_t> inputs_, targets_;  // [batch, context]
  std::int64_t step_ = 0;
  double seconds_ = 0;
};

/// One window per sequence: its first `context` bytes and, one further, the bytes to predict.
inline void trainer::fill_batch() noexcept {
  auto const length = static_cast<std::size_t>(options_.model.context);
  strata::draw_key key{options_.seed, static_cast<std::uint64_t>(step_)};
  for (std::int32_t s = 0; s < options_.batch; ++s) {
    key.sequence = static_cast<std::uint32_t>(s);
    auto const window = windows_.draw(key);
    auto const at = static_cast<std::ptrdiff_t>(length) * s;
    std::copy_n(window.begin(), length, inputs_.begin() + at);
    std::copy_n(window.begin() + 1, length, targets_.begin() + at);
  }
}

/// The batch in draws_per_step parts, as equal as they can be, each under its own route.
inline double trainer::add_gradients() {
  double loss = 0;
  auto const context = options_.model.context;
  for (std::int32_t m = 0; m < options_.draws_per_step; ++m) {
    auto const part = strata::share{m, options_.draws_per_step};
    auto const first = part.begin(options_.batch), last = part.end(options_.batch);
    auto const plan = model_.router().draw(
        {options_.seed, static_cast<std::uint64_t>(step_), static_cast<std::uint32_t>(m)});
    require(plan.state(), "--routing");
    plans_[static_cast<std::size_t>(m)] = *plan;
    token_batch const tokens{inputs_.data() + first * context, targets_.data() + first * context,
                             static_cast<std::int32_t>(last - first), context};
    auto const weight = static_cast<double>(last - first) / options_.batch;
    auto const mean = model_.forward(*plan, tokens, weight);
    if (!std::isfinite(mean))
      throw failure("the loss of step " + std::to_string(step_) +
                    " is not finite; the weights are those before it (try a smaller --lr)");
    loss += weight * mean;
    model_.backward(*plan);
  }
  return loss;
}

inline step_report trainer::step() {
  stopwatch const watch;
  step_report report;
  report.step = step_;
  report.lr = learning_rate(options_.optimizer, step_, options_.steps);
  report.tokens = options_.tokens_per_step();
  fill_batch();
  std::ranges::fill(model_.gradients().values(), 0.0F);
  report.loss = add_gradients();
  report.gradient_norm =
      optimizer_.update(model_.weights(), model_.gradients(), options_.optimizer, report.lr, step_);
  ++step_;
  report.seconds = watch.seconds();
  seconds_ += report.seconds;
  return report;
}

inline void trainer::start_from(parameters<float> const& weights) {
  if (weights.table().entries != model_.weights().table().entries)
    throw failure("--init is a model of another shape", exit_code::wrong_use);
  std::ranges::copy(weights.values(), model_.weights().values().begin());
}

inline void trainer::branch_from(trainer const& other) {
  start_from(other.model_.weights());
  std::ranges::copy(other.optimizer_.first_moment().values(),
                    optimizer_.first_moment().values().begin());
  std::ranges::copy(other.optimizer_.second_moment().values(),
                    optimizer_.second_moment().values().begin());
  step_ = other.step_;
  seconds_ = other.seconds_;
}

inline void trainer::save(std::string const& path) const {
  nlohmann::ordered_json training = {
      {"step", step_},
      {"seconds", seconds_},
      {"arguments", to_json(options_)},
      {"text", {{"bytes", text_.bytes()}, {"crc32c", text_.checksum()}}}};
  save_checkpoint(path, model_.weights(), {&optimizer_.first_moment(), &optimizer_.second_moment()},
                  training);
}

inline std::unique_ptr<trainer> trainer::resume(checkpoint const& saved, corpus const& text,
                                                strata::thread_pool& pool) {
  if (!saved.optimizer)
    throw failure("the model was saved without its optimizer; use --init to train it further");
  try {
    auto const& training = saved.training;
    auto const options = options_from_json(training.at("arguments"), saved.weights.config());
    auto const step = training.at("step").get<std::int64_t>();
    auto const& stored = training.at("text");
    if (stored.at("bytes") != text.bytes() || stored.at("crc32c") != text.checksum())
      throw failure("the text is another one than the run began with: " +
                    std::to_string(text.bytes()) + " bytes, there " + stored.at("bytes").dump() +
                    (stored.at("bytes") == text.bytes() ? ", with another checksum" : ""));
    if (step < 0 || step > options.steps)
      throw failure("the run is at step " + std::to_string(step) + " of " +
                    std::to_string(options.steps));
    auto run = std::make_unique<trainer>(options, text, pool);
    run->start_from(saved.weights);
    std::ranges::copy(saved.optimizer->first.values(),
                      run->optimizer_.first_moment().values().begin());
    std::ranges::copy(saved.optimizer->second.values(),
                      run->optimizer_.second_moment().values().begin());
    run->step_ = step;
    run->seconds_ = training.at("seconds").get<double>();
    return run;
  } catch (nlohmann::json::exception const& error) {
    throw failure(std::string("the checkpoint lacks an argument of its training: ") + error.what());
  }
}

}  // namespace lm
