// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A run of training, wherever its passes are computed: which sequences and which routes a step sees,
// what is saved, and how a run goes on from a file.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/executor.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/plan.hpp>

#include "checkpoint.hpp"
#include "dropout.hpp"
#include "failure.hpp"
#include "optimizer_options.hpp"
#include "progress.hpp"
#include "token_batch.hpp"
#include "training_data.hpp"
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

/// Sequences that go through the model together.
struct batch_part {
  strata::route_plan const& plan;
  token_batch const& tokens;
  double weight = 1;           ///< of its mean loss in the batch's
  bool teaches = false;        ///< what it predicts is kept for parts after it
  std::int64_t first_row = 0;  ///< of what was kept
  double learns = 0;           ///< the share of what was kept in its targets
  dropout dropped = {};
};

/// What all runs have in common.
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

  /// What it trains on.
  training_data const& data() const noexcept { return *data_; }
  /// Where its tokens come from, for the files that it saves: empty where they are bytes.
  void set_tokenizer(std::string path) { tokenizer_ = std::move(path); }
  /// The model that it started from, likewise: empty where its weights were drawn.
  void set_base(std::string path) { base_ = std::move(path); }
  std::string const& base() const noexcept { return base_; }

  /// Mean loss of a batch under a plan, in nats per token that counts, of at most as many sequences as
  /// a step's passes have. Changes nothing.
  virtual double loss(strata::route_plan const& plan, token_batch const& batch) = 0;
  /// Of the largest pass.
  strata::pass_shape most() const noexcept { return largest_pass(options_); }

  /// Starts from other weights of the same shape; the run stays at step 0.
  void start_from(parameters<float> const& weights);
  /// Not resumable: the weights alone.
  void save(std::string const& path, bool resumable = true) const;
  /// What files say of it: its step and arguments, its text and where it came from.
  nlohmann::ordered_json description() const;
  /// Those of a run that trains adapters; they stay until the next call.
  adapter_view trained_adapters() const { return weights_now().optimizer.adapters; }

 protected:
  using data_pointer = std::shared_ptr<training_data const>;

  training_run(training_options const& options, data_pointer data)
      : options_(checked(options)),
        data_(std::move(data)),
        unrouted_(*strata::make_plan(strata::identity_map(options.model.layers),
                                     options.model.classes())),
        inputs_(static_cast<std::size_t>(options.tokens_per_step())),
        targets_(inputs_.size()) {}

  /// Tokens of a sequence of that run.
  static std::int32_t saved_length(checkpoint const& saved) {
    auto const arguments = saved.training.value("arguments", nlohmann::ordered_json::object());
    auto const length = arguments.value("length", 0);
    return length > 0 ? length : saved.weights.config().context;
  }
  /// The arguments of the run that a checkpoint was saved from. Throws where the file has no
  /// optimizer state or the text is another one.
  static training_options saved_options(checkpoint const& saved, training_data const& data);
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
  /// Adds the gradients of a part of the batch.
  virtual void add_gradients(batch_part const& part) = 0;
  /// Fills in loss and norm, and moves the weights at report.lr. Throws `not_finite` instead.
  virtual void update(step_report& report) = 0;

  static training_options const& checked(training_options const& options) {
    if (auto const wrong = options.check(); !wrong.empty())
      throw failure(wrong, exit_code::wrong_use);
    return options;
  }
  std::int32_t fill_batch();
  void close_up(std::int32_t length) noexcept;
  void add_all_gradients(std::int32_t length);
  token_batch sequences(std::int32_t first, std::int32_t last, std::int32_t length) const noexcept {
    auto const at = std::int64_t{first} * length;
    return {inputs_.data() + at, targets_.data() + at, last - first, length};
  }
  strata::draw_key key_of(std::int32_t part) const noexcept {
    return {options_.seed, static_cast<std::uint64_t>(step_), static_cast<std::uint32_t>(part)};
  }
  dropout dropout_of(std::int32_t part) const noexcept {
    return dropout(options_.dropout, key_of(part));
  }
  std::int32_t first_routed() const noexcept { return options_.full_half ? options_.batch / 2 : 0; }

  training_options options_;
  data_pointer data_;
  strata::route_plan unrouted_;
  std::string tokenizer_, base_;
  std::vector<strata::route_plan> plans_;       // of the routed parts
  std::vector<std::int32_t> inputs_, targets_;  // [batch, length]
  std::int64_t step_ = 0;
  double seconds_ = 0;
};

/// Draws the sequences of the step, as long as its longest, which is returned: [batch, length].
inline std::int32_t training_run::fill_batch() {
  auto const context = static_cast<std::size_t>(options_.sequence_length());
  std::int32_t longest = 1;
  strata::draw_key key{options_.seed, static_cast<std::uint64_t>(step_)};
  for (std::int32_t s = 0; s < options_.batch; ++s) {
    auto const again = options_.distill > 0 && s >= first_routed() ? first_routed() : 0;
    key.sequence = static_cast<std::uint32_t>(s - again);
    auto const at = context * static_cast<std::size_t>(s);
    longest = std::max(longest, data_->fill(key, std::span(inputs_).subspan(at, context),
                                            std::span(targets_).subspan(at, context)));
  }
  close_up(longest);
  return longest;
}

/// Moves rows together where no sequence needs the whole context.
inline void training_run::close_up(std::int32_t length) noexcept {
  auto const context = std::ptrdiff_t{options_.sequence_length()};
  if (length == context) return;
  for (auto* const rows : {&inputs_, &targets_})
    for (std::ptrdiff_t s = 1; s < options_.batch; ++s)
      std::copy_n(rows->begin() + s * context, length, rows->begin() + s * length);
}

/// The batch, or with full_half its second half, in draws_per_step parts, as equal as they can be,
/// each under its own route.
inline void training_run::add_all_gradients(std::int32_t length) {
  auto const start = first_routed();
  auto const all = static_cast<double>(sequences(0, options_.batch, length).scored());
  auto const weight = [&](token_batch const& part) {
    return static_cast<double>(part.scored()) / all;
  };
  plans_.clear();
  if (start > 0) {
    auto const half = sequences(0, start, length);
    add_gradients({unrouted_, half, weight(half), options_.distill > 0, 0, 0,
                   dropout_of(options_.draws_per_step)});
  }
  for (std::int32_t m = 0; m < options_.draws_per_step; ++m) {
    auto const part = strata::share{m, options_.draws_per_step};
    auto const first = part.begin(options_.batch - start), last = part.end(options_.batch - start);
    auto const plan = draw(key_of(m));
    require(plan.state(), "--routing");
    plans_.push_back(*plan);
    auto const tokens = sequences(static_cast<std::int32_t>(start + first),
                                  static_cast<std::int32_t>(start + last), length);
    add_gradients(
        {*plan, tokens, weight(tokens), false, first * length, options_.distill, dropout_of(m)});
  }
}

inline step_report training_run::step() {
  stopwatch const watch;
  step_report report;
  report.step = step_;
  report.lr = learning_rate(options_.optimizer, step_, options_.steps);
  auto const length = fill_batch();
  report.tokens = std::int64_t{options_.batch} * length;
  start_gradients();
  add_all_gradients(length);
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

inline nlohmann::ordered_json training_run::description() const {
  nlohmann::ordered_json training = {
      {"step", step_},
      {"seconds", seconds_},
      {"arguments", to_json(options_)},
      {"text", {{"bytes", data_->bytes()}, {"crc32c", data_->checksum()}}}};
  if (!tokenizer_.empty()) training["tokenizer"] = tokenizer_;
  if (!base_.empty()) training["base"] = base_;
  return training;
}

inline void training_run::save(std::string const& path, bool resumable) const {
  auto const [weights, optimizer] = weights_now();
  save_checkpoint(path, weights, resumable ? optimizer : moments_view(), description());
}

inline training_options training_run::saved_options(checkpoint const& saved,
                                                    training_data const& data) {
  if (!saved.optimizer && !saved.adapters)
    throw failure("the model was saved without its optimizer; use --init to train it further");
  try {
    auto const& training = saved.training;
    auto const options = options_from_json(training.at("arguments"), saved.weights.config());
    if (auto const rank = saved.adapters ? saved.adapters->rank : 0; rank != options.lora)
      throw failure("the run has --lora " + std::to_string(options.lora) +
                    ", its file adapters of rank " + std::to_string(rank));
    auto const step = training.at("step").get<std::int64_t>();
    auto const& stored = training.at("text");
    static_cast<void>(training.at("seconds").get<double>());
    if (stored.at("bytes") != data.bytes() || stored.at("crc32c") != data.checksum())
      throw failure("the text is another one than the run began with: " +
                    std::to_string(data.bytes()) + " bytes, there " + stored.at("bytes").dump() +
                    (stored.at("bytes") == data.bytes() ? ", with another checksum" : ""));
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
  set_weights(saved.weights, saved.adapters
                                 ? moments_view{nullptr, nullptr, view_of(*saved.adapters)}
                                 : moments_view{&saved.optimizer->first, &saved.optimizer->second});
  step_ = saved.training.at("step").get<std::int64_t>();
  seconds_ = saved.training.at("seconds").get<double>();
}

}  // namespace lm
