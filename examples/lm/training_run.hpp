// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A run of training, wherever its passes are computed: which windows and which routes a step sees,
// what is saved, and how a run goes on from a file.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <strata/executor.hpp>
#include <strata/plan.hpp>

#include "checkpoint.hpp"
#include "failure.hpp"
#include "optimizer_options.hpp"
#include "progress.hpp"
#include "text.hpp"
#include "token_batch.hpp"
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

/// What all runs have in common. The text is the caller's and outlives it.
class training_run {
 public:
  virtual ~training_run() = default;
  training_run(training_run const&) = delete;
  training_run& operator=(training_run const&) = delete;

  training_options const& options() const noexcept { return options_; }
  std::int64_t steps_done() const noexcept { return step_; }
  bool finished() const noexcept { return step_ >= options_.steps; }
  /// Seconds spent in steps, those before a resumption too.
  double seconds() const noexcept { return seconds_; }
  /// The plans of the last step's micro-batches.
  std::vector<strata::route_plan> const& plans() const noexcept { return plans_; }

  /// One optimizer step. Throws where loss or gradient is not finite; weights, moments and step are
  /// then those before it.
  step_report step();

  /// Starts from other weights of the same shape; the run stays at step 0.
  void start_from(parameters<float> const& weights);
  void save(std::string const& path) const;

 protected:
  training_run(training_options const& options, corpus const& text)
      : options_(checked(options)),
        text_(text),
        windows_(text, std::int64_t{options.model.context} + 1),
        plans_(static_cast<std::size_t>(options.draws_per_step)),
        inputs_(static_cast<std::size_t>(options.tokens_per_step())),
        targets_(inputs_.size()) {}

  static strata::pass_shape largest_pass(training_options const& o) noexcept {
    return {(o.batch + o.draws_per_step - 1) / o.draws_per_step, o.model.context};
  }
  /// The arguments of the run that a checkpoint was saved from. Throws where the file has no
  /// optimizer state or the text is another one.
  static training_options saved_options(checkpoint const& saved, corpus const& text);
  /// Goes on from where a run of these arguments was saved, or another run is.
  void continue_from(checkpoint const& saved);
  void continue_from(training_run const& other);

  /// Weights and moments, here or brought here; they stay until the next call.
  struct all_weights {
    parameters<float> const& weights;
    moments_view optimizer;
  };

  failure not_finite(char const* what) const {
    return failure(std::string("the ") + what + " of step " + std::to_string(step_) +
                   " is not finite; the weights are those before it (try a smaller --lr)");
  }

 private:
  virtual all_weights weights_now() const = 0;
  /// Null moments: zeros.
  virtual void set_weights(parameters<float> const& weights, moments_view optimizer) = 0;

  virtual strata::result<strata::route_plan> draw(strata::draw_key const& key) const = 0;
  /// Zero gradients, and no loss.
  virtual void start_gradients() = 0;
  /// Adds the gradients of a part of the batch, `weight` of the whole.
  virtual void add_gradients(strata::route_plan const& plan, token_batch const& tokens,
                             double weight) = 0;
  /// Fills in loss and norm, and moves the weights at report.lr. Throws `not_finite` instead.
  virtual void update(step_report& report) = 0;

  static training_options const& checked(training_options const& options) {
    if (auto const wrong = options.check(); !wrong.empty())
      throw failure(wrong, exit_code::wrong_use);
    return options;
  }
  void fill_batch() noexcept;
  void add_all_gradients();

  training_options options_;
  corpus const& text_;
  window_sampler windows_;
  std::vector<strata::route_plan> plans_;       // [draws_per_step]
  std::vector<std::uint8_t> inputs_, targets_;  // [batch, context]
  std::int64_t step_ = 0;
  double seconds_ = 0;
};

/// One window per sequence: its first `context` bytes and, one further, the bytes to predict.
inline void training_run::fill_batch() noexcept {
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
inline void training_run::add_all_gradients() {
  auto const context = options_.model.context;
  for (std::int32_t m = 0; m < options_.draws_per_step; ++m) {
    auto const part = strata::share{m, options_.draws_per_step};
    auto const first = part.begin(options_.batch), last = part.end(options_.batch);
    auto const plan =
        draw({options_.seed, static_cast<std::uint64_t>(step_), static_cast<std::uint32_t>(m)});
    require(plan.state(), "--routing");
    plans_[static_cast<std::size_t>(m)] = *plan;
    token_batch const tokens{inputs_.data() + first * context, targets_.data() + first * context,
                             static_cast<std::int32_t>(last - first), context};
    add_gradients(*plan, tokens, static_cast<double>(last - first) / options_.batch);
  }
}

inline step_report training_run::step() {
  stopwatch const watch;
  step_report report;
  report.step = step_;
  report.lr = learning_rate(options_.optimizer, step_, options_.steps);
  report.tokens = options_.tokens_per_step();
  fill_batch();
  start_gradients();
  add_all_gradients();
  update(report);
  ++step_;
  report.seconds = watch.seconds();
  seconds_ += report.seconds;
  return report;
}

inline void training_run::start_from(parameters<float> const& weights) {
  if (weights.table().entries != make_tensor_table(options_.model).entries)
    throw failure("--init is a model of another shape", exit_code::wrong_use);
  set_weights(weights, {});
}

inline void training_run::continue_from(training_run const& other) {
  auto const [weights, optimizer] = other.weights_now();
  start_from(weights);
  set_weights(weights, optimizer);
  step_ = other.step_;
  seconds_ = other.seconds_;
}

inline void training_run::save(std::string const& path) const {
  nlohmann::ordered_json training = {
      {"step", step_},
      {"seconds", seconds_},
      {"arguments", to_json(options_)},
      {"text", {{"bytes", text_.bytes()}, {"crc32c", text_.checksum()}}}};
  auto const [weights, optimizer] = weights_now();
  save_checkpoint(path, weights, optimizer, training);
}

inline training_options training_run::saved_options(checkpoint const& saved, corpus const& text) {
  if (!saved.optimizer)
    throw failure("the model was saved without its optimizer; use --init to train it further");
  try {
    auto const& training = saved.training;
    auto const options = options_from_json(training.at("arguments"), saved.weights.config());
    auto const step = training.at("step").get<std::int64_t>();
    auto const& stored = training.at("text");
    static_cast<void>(training.at("seconds").get<double>());
    if (stored.at("bytes") != text.bytes() || stored.at("crc32c") != text.checksum())
      throw failure("the text is another one than the run began with: " +
                    std::to_string(text.bytes()) + " bytes, there " + stored.at("bytes").dump() +
                    (stored.at("bytes") == text.bytes() ? ", with another checksum" : ""));
    if (step < 0 || step > options.steps)
      throw failure("the run is at step " + std::to_string(step) + " of " +
                    std::to_string(options.steps));
    return options;
  } catch (nlohmann::json::exception const& error) {
    throw failure(std::string("the checkpoint lacks an argument of its training: ") + error.what());
  }
}

inline void training_run::continue_from(checkpoint const& saved) {
  start_from(saved.weights);
  set_weights(saved.weights, {&saved.optimizer->first, &saved.optimizer->second});
  step_ = saved.training.at("step").get<std::int64_t>();
  seconds_ = saved.training.at("seconds").get<double>();
}

}  // namespace lm
