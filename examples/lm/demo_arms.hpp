// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The models of the demo and how they train: in turns, a step each, on the same batches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <strata/thread_pool.hpp>

#include "trainer.hpp"

namespace lm {

/// P(self) of the routed models of the demo.
inline constexpr char const* demo_routing = "rcla:0.5";

/// One model of the demo.
struct arm_spec {
  std::string name;
  std::string about;    ///< half a line
  std::string routing;  ///< that it trains with
  model_config model;
  bool branches = false;  ///< goes on from `plain` at half of the steps

  /// The routing as reports tell it.
  std::string routing_text() const { return branches ? "self, then " + routing : routing; }
};

/// plain first, then the others; `also` are routings of further models of full depth.
inline std::vector<arm_spec> demo_arms(model_config const& whole,
                                       std::vector<std::string> const& also) {
  auto const shallower = [&](std::int32_t divisor) {
    auto c = whole;
    c.layers = std::max(whole.layers / divisor, 1);
    return c;
  };
  std::vector<arm_spec> arms = {
      {"plain", "each layer reads its own K and V", "self", whole},
      {"rcla", "R-CLA with P(self) 0.5 from the start", demo_routing, whole},
      {"finished", "plain for half of the steps, then R-CLA", demo_routing, whole, true},
      {"plain-half", "plain, half of the layers", "self", shallower(2)},
      {"plain-quarter", "plain, a quarter of the layers", "self", shallower(4)}};
  for (auto const& routing : also) arms.push_back({routing, "as --also says", routing, whole});
  return arms;
}

/// A model in training.
class arm {
 public:
  arm(arm_spec spec, training_options options, corpus const& text_read, strata::thread_pool& pool)
      : spec_(std::move(spec)), options_(std::move(options)), text_(text_read), pool_(pool) {
    options_.model = spec_.model;
    options_.routing = spec_.routing;
    if (!spec_.branches) run_ = std::make_unique<trainer>(options_, text_, pool_);
  }

  arm_spec const& spec() const noexcept { return spec_; }
  /// A model that branches off does not exist before half of the steps.
  bool exists() const noexcept { return run_ != nullptr; }
  parameters<float> const& weights() const { return run_->model().weights(); }
  double train_seconds() const noexcept { return exists() ? run_->seconds() : 0; }
  /// Of the last step.
  double train_loss() const noexcept { return train_loss_; }
  std::int64_t steps_done() const noexcept { return exists() ? run_->steps_done() : 0; }

  void step() { train_loss_ = run_->step().loss; }

  /// Begins where another model stands: its weights, its moments, its step, and the time it took.
  void branch_off(arm const& from) {
    run_ = std::make_unique<trainer>(options_, text_, pool_);
    run_->branch_from(*from.run_);
    train_loss_ = from.train_loss_;
  }

 private:
  arm_spec spec_;
  training_options options_;
  corpus const& text_;
  strata::thread_pool& pool_;
  std::unique_ptr<trainer> run_;
  double train_loss_ = 0;
};

/// All models at the same step.
class experiment {
 public:
  experiment(std::vector<arm_spec> const& specs, training_options const& options,
             corpus const& text_read, strata::thread_pool& pool)
      : steps_(options.steps) {
    for (auto const& spec : specs) arms_.emplace_back(spec, options, text_read, pool);
  }

  std::vector<arm> const& arms() const noexcept { return arms_; }
  arm const& operator[](std::string const& name) const {
    for (auto const& a : arms_)
      if (a.spec().name == name) return a;
    throw failure("the demo has no model " + name);
  }
  std::int64_t steps() const noexcept { return steps_; }
  std::int64_t steps_done() const noexcept { return done_; }
  bool finished() const noexcept { return done_ == steps_; }
  std::int64_t branch_step() const noexcept { return steps_ / 2; }

  /// A step of every model that exists.
  void step() {
    // Before any model steps: a branch begins with the batch that plain sees next.
    for (auto& a : arms_)
      if (a.spec().branches && done_ == branch_step()) a.branch_off(arms_.front());
    for (auto& a : arms_)
      if (a.exists()) a.step();
    ++done_;
  }

 private:
  std::int64_t steps_;
  std::int64_t done_ = 0;
  std::vector<arm> arms_;
};

}  // namespace lm
