// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstdint>

#include <strata/thread_pool.hpp>

#include "adapter_table.hpp"
#include "aligned_buffer.hpp"
#include "gemm.hpp"
#include "optimizer.hpp"

namespace lm {

/// W += B A, in the calling thread.
inline void add_adapter(adapted_matrix const& m, std::int64_t rank, float const* values,
                        float* matrix) noexcept {
  detail::gemm(CblasNoTrans, CblasNoTrans, m.out, m.in, rank, values + m.b, rank, values + m.a,
               m.in, 1.F, matrix, m.in);
}

/// Adapters in training on the processor. Their gradients come from those of the whole matrices,
/// dA = B^T dW and dB = dW A^T, so that passes know nothing of them: a step costs what one of full
/// training does, and its optimizer's memory is the adapters' alone.
class adapters {
 public:
  adapters(model_config const& config, std::int64_t rank, std::uint64_t seed,
           strata::thread_pool& pool)
      : pool_(pool),
        table_(config, rank),
        base_(config),
        optimizer_(table_.tensors, pool),
        values_(table_.tensors.size),
        gradients_(table_.tensors.size),
        first_(table_.tensors.size),
        second_(table_.tensors.size) {
    table_.initialise(values_.values(), seed);
  }

  /// What they are added to from now on.
  void set_base(parameters<float> const& weights) {
    std::ranges::copy(weights.values(), base_.values().begin());
  }

  adapter_view state() const noexcept {
    return {table_.rank, &base_, values_.values(), first_.values(), second_.values()};
  }
  /// Goes on from what `state` was, of as many adapters.
  void set_state(adapter_view const& from) {
    set_base(*from.base);
    std::ranges::copy(from.values, values_.values().begin());
    std::ranges::copy(from.first, first_.values().begin());
    std::ranges::copy(from.second, second_.values().begin());
  }

  /// One step, and the weights anew. Returns the norm of the adapters' gradient before clipping.
  /// Throws, and changes nothing, where that is not finite.
  double update(parameters<float>& weights, parameters<float> const& gradients,
                optimizer_options const& o, double lr, std::int64_t step) {
    use_single_threaded_blas();
    auto const count = static_cast<std::int64_t>(table_.matrices.size());
    for_tasks(pool_, count, [&](std::int64_t i, std::int32_t) {
      differentiate(table_.matrices[static_cast<std::size_t>(i)], gradients.values().data());
    });
    auto const norm = optimizer_.update(values_.values(), gradients_.values(), first_.values(),
                                        second_.values(), o, lr, step);
    for_tasks(pool_, count, [&](std::int64_t i, std::int32_t) {
      merge(table_.matrices[static_cast<std::size_t>(i)], weights.values().data());
    });
    return norm;
  }

 private:
  void differentiate(adapted_matrix const& m, float const* gradients) noexcept {
    float const* const dw = gradients + m.weight;
    detail::gemm(CblasTrans, CblasNoTrans, table_.rank, m.in, m.out, values_.data() + m.b,
                 table_.rank, dw, m.in, 0.F, gradients_.data() + m.a, m.in);
    detail::gemm(CblasNoTrans, CblasTrans, m.out, table_.rank, m.in, dw, m.in, values_.data() + m.a,
                 m.in, 0.F, gradients_.data() + m.b, table_.rank);
  }
  void merge(adapted_matrix const& m, float* weights) noexcept {
    std::copy_n(base_.values().data() + m.weight, m.size(), weights + m.weight);
    add_adapter(m, table_.rank, values_.data(), weights + m.weight);
  }

  strata::thread_pool& pool_;
  adapter_table table_;
  parameters<float> base_;
  tensor_adamw<float> optimizer_;
  aligned_buffer<float> values_, gradients_, first_, second_;  // of table_
};

}  // namespace lm
