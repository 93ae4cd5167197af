// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The parameters of a model on a device, as parameters.hpp's table has them: the bf16 copy that
// products read, and in training float masters, gradients and moments of the same layout.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cuda/adamw.hpp"
#include "cuda/machine.hpp"
#include "failure.hpp"
#include "optimizer_options.hpp"
#include "parameters.hpp"

namespace lm::cuda {

/// What serving needs: 2 bytes a parameter.
template <machine Machine>
class device_weights {
 public:
  device_weights(Machine& m, model_config const& config)
      : table_(make_tensor_table(config)),
        buffer_(m.template allocate<bfloat16>(table_.size)),
        weights_(point_into<bfloat16 const>(buffer_.data(), table_, config)) {
    m.fill_zero(buffer_.data(), table_.size);
  }

  tensor_table const& table() const noexcept { return table_; }
  bfloat16* data() const noexcept { return buffer_.data(); }
  model_weights<bfloat16 const> const& weights() const noexcept { return weights_; }

  /// Random weights of the usual size, as of a model that only its speed is asked of.
  void fill_with_noise(Machine& m, std::uint64_t seed) {
    std::uint32_t which = 0;
    for (auto const& e : table_.entries) {
      bool const norm = e.role == tensor_role::norm;
      m.launch(fill_noise{data() + e.offset, e.size(), seed, which++, norm ? 0.F : .02F,
                          norm ? 1.F : 0.F});
    }
  }

 private:
  using buffer = decltype(std::declval<Machine&>().template allocate<bfloat16>(0));
  tensor_table table_;
  buffer buffer_;
  model_weights<bfloat16 const> weights_;
};

/// What AdamW keeps of a table's tensors: float masters, gradients and moments, 16 bytes an element.
template <machine Machine>
class trained_tensors {
 public:
  /// rounded: [table.size], where the masters follow in bf16.
  trained_tensors(Machine& m, tensor_table const& table, bfloat16* rounded)
      : machine_(m),
        rounded_(rounded),
        size_(table.size),
        masters_(m.template allocate<float>(size_)),
        gradients_(m.template allocate<float>(size_)),
        first_(m.template allocate<float>(size_)),
        second_(m.template allocate<float>(size_)) {
    auto const runs = make_update_runs(table);
    num_runs_ = static_cast<std::int64_t>(runs.size());
    runs_ = m.template allocate<update_run>(num_runs_);
    squares_ = m.template allocate<double>(num_runs_ + 1);  // and the norm
    m.upload(std::span<update_run const>(runs), runs_.data());
    for (auto* const b : {&masters_, &gradients_, &first_, &second_}) m.fill_zero(b->data(), size_);
    m.wait();  // for `runs`
  }

  std::int64_t size() const noexcept { return size_; }
  float* masters() const noexcept { return masters_.data(); }
  float* gradients() const noexcept { return gradients_.data(); }

  /// Enqueues the masters' copies in bf16.
  void round_masters() { machine_.launch(cast<float, bfloat16>{masters_.data(), rounded_, size_}); }

  /// From and to a checkpoint's parameters and moments, which are the table's size. These wait.
  void set_masters(std::span<float const> values) {
    machine_.upload(values, masters_.data());
    round_masters();
    machine_.wait();
  }
  void set_moments(std::span<float const> first, std::span<float const> second) {
    machine_.upload(first, first_.data());
    machine_.upload(second, second_.data());
    machine_.wait();
  }
  void get(std::span<float> masters, std::span<float> first, std::span<float> second) {
    machine_.download(static_cast<float const*>(masters_.data()), masters);
    machine_.download(static_cast<float const*>(first_.data()), first);
    machine_.download(static_cast<float const*>(second_.data()), second);
    machine_.wait();
  }

  void start_gradients() { machine_.fill_zero(gradients_.data(), size_); }

  /// Enqueues one step of AdamW; `step` counts from 0. Weights stay as they are where the norm is
  /// not finite, which `norm` then tells.
  void update(optimizer_options const& o, double lr, std::int64_t step) {
    machine_.launch(sum_squares{gradients_.data(), runs_.data(), squares_.data(), num_runs_});
    machine_.launch(finish_norm{squares_.data(), norm_data(), num_runs_});
    machine_.launch(update_weights{masters_.data(), rounded_, first_.data(), second_.data(),
                                   gradients_.data(), norm_data(), runs_.data(), num_runs_,
                                   factors_of(o, lr, step)});
  }
  /// The norm of the last update's gradient, before clipping. Waits.
  double norm() {
    double value = 0;
    machine_.download(static_cast<double const*>(norm_data()), std::span(&value, 1));
    machine_.wait();
    return value;
  }

 private:
  template <class T>
  using buffer = decltype(std::declval<Machine&>().template allocate<T>(0));

  double* norm_data() const noexcept { return squares_.data() + num_runs_; }

  static update_factors factors_of(optimizer_options const& o, double lr, std::int64_t step) {
    auto const t = static_cast<double>(step + 1);
    update_factors f;
    f.clip = static_cast<float>(o.clip);
    f.beta1 = static_cast<float>(o.beta1);
    f.beta2 = static_cast<float>(o.beta2);
    f.lr = static_cast<float>(lr);
    f.unbias1 = static_cast<float>(1 / (1 - std::pow(o.beta1, t)));
    f.unbias2 = static_cast<float>(1 / (1 - std::pow(o.beta2, t)));
    f.epsilon = static_cast<float>(o.epsilon);
    f.shrink = static_cast<float>(1 - lr * o.weight_decay);
    return f;
  }

  Machine& machine_;
  bfloat16* rounded_ = nullptr;
  std::int64_t size_ = 0;
  buffer<float> masters_, gradients_, first_, second_;
  std::int64_t num_runs_ = 0;
  buffer<update_run> runs_;
  buffer<double> squares_;
};

/// What training needs: the weights that products read, and what AdamW keeps of them; 18 bytes a
/// parameter.
template <machine Machine>
class training_state : public trained_tensors<Machine> {
 public:
  training_state(Machine& m, model_config const& config)
      : training_state(m, config, device_weights<Machine>(m, config)) {}

  static std::int64_t bytes(model_config const& config) {
    return 18 * make_tensor_table(config).size;
  }

  device_weights<Machine> const& weights() const noexcept { return weights_; }
  /// Their gradients, as tensors.
  model_weights<float> const& gradient_weights() const noexcept { return gradient_weights_; }

 private:
  training_state(Machine& m, model_config const& config, device_weights<Machine> weights)
      : trained_tensors<Machine>(m, weights.table(), weights.data()),
        weights_(std::move(weights)),
        gradient_weights_(point_into<float>(this->gradients(), weights_.table(), config)) {}

  device_weights<Machine> weights_;
  model_weights<float> gradient_weights_;
};

}  // namespace lm::cuda
