// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// AdamW (Loshchilov and Hutter, 2019) with clipping by the global norm, over flat buffers.
//
//     g  = gradient * min(1, clip / |gradient|)      |gradient|: over all tensors
//     m  = beta1 m + (1 - beta1) g
//     v  = beta2 v + (1 - beta2) g g
//     w -= lr * (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay * w)
//
// with t counted from 1. All matrices decay, the embedding among them (it is the output projection
// too, where tied); norm gains do not. A tensor without gradient, such as the K projection of a
// layer that nobody read, is no exception: its g is zero, its moments and decay go on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <strata/config.hpp>
#include <strata/thread_pool.hpp>

#include "config.hpp"
#include "failure.hpp"
#include "gemm.hpp"
#include "layers.hpp"
#include "optimizer_options.hpp"
#include "parameters.hpp"

namespace lm {

/// A run of elements of one tensor: the unit of work and of summation, whatever the threads.
struct element_run {
  std::int64_t begin = 0, count = 0;
  bool decays = false;
};

/// AdamW's work on the tensors of a table; weights, gradients and moments are the caller's, and so are
/// the threads, which outlive it.
template <class T>
class tensor_adamw {
 public:
  tensor_adamw(tensor_table const& table, strata::thread_pool& pool) : pool_(pool) {
    for (auto const& e : table.entries)
      for (std::int64_t at = 0; at < e.size(); at += run_size)
        runs_.push_back(
            {e.offset + at, std::min(run_size, e.size() - at), e.role != tensor_role::norm});
    squares_.resize(runs_.size());
  }

  /// The global norm: each run in 16 lanes of T, the runs in ascending order in double.
  double norm(std::span<T const> values) {
    for_tasks(pool_, count(), [&](std::int64_t i, std::int32_t) {
      auto const& run = runs_[static_cast<std::size_t>(i)];
      T const* const g = values.data() + run.begin;
      squares_[static_cast<std::size_t>(i)] = static_cast<double>(
          detail::sum<T>(run.count, [g](std::int64_t j) { return g[j] * g[j]; }));
    });
    double sum = 0;
    for (auto const s : squares_) sum += s;
    return std::sqrt(sum);
  }

  /// One step; `step` counts from 0. Returns the norm of the gradient before clipping. Throws, and
  /// changes nothing, where the norm is not finite.
  double update(std::span<T> weights, std::span<T const> gradient, std::span<T> first,
                std::span<T> second, optimizer_options const& o, double lr, std::int64_t step) {
    auto const size = norm(gradient);
    if (!std::isfinite(size))
      throw failure("the gradient of step " + std::to_string(step) +
                    " is not finite; the weights are those before it (try a smaller --lr)");
    factors const f = make_factors(o, lr, step, size);
    for_tasks(pool_, count(), [&](std::int64_t i, std::int32_t) {
      update_run(weights.data(), gradient.data(), first.data(), second.data(), f,
                 runs_[static_cast<std::size_t>(i)]);
    });
    return size;
  }

 private:
  static constexpr std::int64_t run_size = 16384;

  struct factors {
    T scale, beta1, beta2, lr, unbias1, unbias2, epsilon, shrink;
  };
  static factors make_factors(optimizer_options const& o, double lr, std::int64_t step,
                              double size) {
    auto const t = static_cast<double>(step + 1);
    factors f;
    f.scale = static_cast<T>(o.clip > 0 && size > o.clip ? o.clip / size : 1.0);
    f.beta1 = static_cast<T>(o.beta1);
    f.beta2 = static_cast<T>(o.beta2);
    f.lr = static_cast<T>(lr);
    f.unbias1 = static_cast<T>(1 / (1 - std::pow(o.beta1, t)));
    f.unbias2 = static_cast<T>(1 / (1 - std::pow(o.beta2, t)));
    f.epsilon = static_cast<T>(o.epsilon);
    f.shrink = static_cast<T>(1 - lr * o.weight_decay);
    return f;
  }

  static void update_run(T* weights, T const* gradient, T* first, T* second, factors f,
                         element_run run) noexcept {
    T* STRATA_RESTRICT const w = weights + run.begin;
    T* STRATA_RESTRICT const m = first + run.begin;
    T* STRATA_RESTRICT const v = second + run.begin;
    T const* STRATA_RESTRICT const g = gradient + run.begin;
    T const shrink = run.decays ? f.shrink : T{1};
    for (std::int64_t i = 0; i < run.count; ++i) {
      T const d = g[i] * f.scale;
      m[i] = f.beta1 * m[i] + (1 - f.beta1) * d;
      v[i] = f.beta2 * v[i] + (1 - f.beta2) * d * d;
      w[i] = shrink * w[i] -
             f.lr * (m[i] * f.unbias1) / (detail::square_root(v[i] * f.unbias2) + f.epsilon);
    }
  }

  std::int64_t count() const noexcept { return static_cast<std::int64_t>(runs_.size()); }

  strata::thread_pool& pool_;
  std::vector<element_run> runs_;
  std::vector<double> squares_;  // [runs]
};

/// The state of AdamW for all parameters of a model. The threads are the caller's and outlive it.
template <class T>
class adamw {
 public:
  adamw(model_config const& config, strata::thread_pool& pool)
      : first_(config), second_(config), work_(first_.table(), pool) {}

  parameters<T>& first_moment() noexcept { return first_; }
  parameters<T>& second_moment() noexcept { return second_; }
  parameters<T> const& first_moment() const noexcept { return first_; }
  parameters<T> const& second_moment() const noexcept { return second_; }

  double norm(parameters<T> const& gradient) { return work_.norm(gradient.values()); }

  /// As tensor_adamw has it.
  double update(parameters<T>& weights, parameters<T> const& gradient, optimizer_options const& o,
                double lr, std::int64_t step) {
    return work_.update(weights.values(), gradient.values(), first_.values(), second_.values(), o,
                        lr, step);
  }

 private:
  parameters<T> first_, second_;
  tensor_adamw<T> work_;
};

}  // namespace lm
