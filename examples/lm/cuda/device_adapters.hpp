// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "adapter_table.hpp"
#include "cuda/device_parameters.hpp"
#include "cuda/machine.hpp"

namespace lm::cuda {

/// Adapters in training on a device, by the formulas of adapters.hpp. A model's own moments, which
/// its training_state has as well, stay zero: 8 bytes a parameter that adapters could do without.
template <training_machine Machine>
class device_adapters {
 public:
  device_adapters(Machine& m, model_config const& config, std::int64_t rank, std::uint64_t seed)
      : machine_(m),
        table_(config, rank),
        rounded_(m.template allocate<bfloat16>(table_.tensors.size)),
        trained_(m, table_.tensors, rounded_.data()),
        base_(m.template allocate<float>(make_tensor_table(config).size)),
        gradient_(m.template allocate<bfloat16>(table_.largest())) {
    std::vector<float> values(static_cast<std::size_t>(table_.tensors.size));
    table_.initialise(values, seed);
    trained_.set_masters(values);
  }

  static std::int64_t bytes(model_config const& config, std::int64_t rank) {
    adapter_table const table(config, rank);
    return 18 * table.tensors.size + 4 * make_tensor_table(config).size + 2 * table.largest();
  }

  /// From and to a checkpoint's adapters; `to` has their sizes. These wait.
  void set_state(adapter_view const& from) {
    machine_.upload(from.base->values(), base_.data());
    trained_.set_masters(from.values);
    trained_.set_moments(from.first, from.second);
  }
  void get(adapter_state& to) {
    machine_.download(static_cast<float const*>(base_.data()), to.base.values());
    trained_.get(to.values, to.first, to.second);
  }

  /// What they are added to from now on: the masters as they are.
  void set_base(training_state<Machine> const& state) {
    machine_.launch(cast<float, float>{state.masters(), base_.data(), state.size()});
  }

  /// Enqueues one step by the gradients of the whole matrices, and the weights anew.
  void update(training_state<Machine>& state, optimizer_options const& o, double lr,
              std::int64_t step) {
    trained_.start_gradients();
    for (auto const& m : table_.matrices) differentiate(m, state.gradients() + m.weight);
    trained_.update(o, lr, step);
    machine_.launch(cast<float, float>{base_.data(), state.masters(), state.size()});
    for (auto const& m : table_.matrices)
      machine_.input_gradient(rounded_.data() + m.b, rounded_.data() + m.a,
                              state.masters() + m.weight, m.out, m.in, table_.rank, true);
    state.round_masters();
  }
  /// As trained_tensors has it. Waits.
  double norm() { return trained_.norm(); }

 private:
  template <class T>
  using buffer = decltype(std::declval<Machine&>().template allocate<T>(0));

  /// dA += B^T dW, dB = dW A^T: products of bf16, sums in float.
  void differentiate(adapted_matrix const& m, float const* dw) {
    machine_.launch(cast<float, bfloat16>{dw, gradient_.data(), m.size()});
    bfloat16 const* const rounded = gradient_.data();
    machine_.weight_gradient(rounded_.data() + m.b, rounded, trained_.gradients() + m.a, m.out,
                             m.in, table_.rank);
    machine_.linear(rounded, rounded_.data() + m.a, trained_.gradients() + m.b, m.out, m.in,
                    table_.rank);
  }

  Machine& machine_;
  adapter_table table_;
  buffer<bfloat16> rounded_;  // of table_
  trained_tensors<Machine> trained_;
  buffer<float> base_;         // of all weights
  buffer<bfloat16> gradient_;  // of one matrix
};

}  // namespace lm::cuda
