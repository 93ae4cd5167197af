// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Gradients of an attention kernel against the slopes of its own forward pass, in double.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/cache/codec.hpp>

#include "attention_cases.hpp"

namespace support {

/// The loss is the sum of out * d_out.
template <class Kernel>
class slopes {
 public:
  using problem_type = attention_problem<strata::f64_codec>;

  slopes(Kernel const& kernel, problem_type& problem)
      : kernel_(kernel), problem_(problem), call_(problem) {}

  void check() {
    loss();
    REQUIRE(call_.backward(kernel_, problem_.view()).ok());
    for (std::size_t i = 0; i < call_.d_q.size(); ++i)
      check(call_.d_q[i], call_.q[i], [&](double x) { call_.q[i] = x; });
    for_each_token(problem_.view(), [&](auto s, auto h, auto t) { check_token(s, h, t); });
  }

 private:
  void check_token(std::int32_t s, std::int32_t h, std::int32_t t) {
    auto const& c = problem_.shape();
    auto const view = problem_.view();
    auto const token = as_size((s * problem_.max_length() + t) * c.kv_heads + h);
    std::vector<double> k(as_size(c.k_dim)), v(as_size(c.v_dim));
    view.load_k(s, h, t, k.data());
    view.load_v(s, h, t, v.data());
    for (std::size_t i = 0; i < k.size(); ++i)
      check(call_.dk[token * k.size() + i], k[i], [&](double x) {
        k[i] = x;
        problem_.write_k(s, h, t, k);
      });
    for (std::size_t i = 0; i < v.size(); ++i)
      check(call_.dv[token * v.size() + i], v[i], [&](double x) {
        v[i] = x;
        problem_.write_v(s, h, t, v);
      });
  }

  /// A gradient against the slope of the loss along one number, which `set` writes.
  template <class Set>
  void check(double gradient, double at, Set&& set) {
    constexpr double h = 1e-5;
    set(at + h);
    auto const above = loss();
    set(at - h);
    auto const below = loss();
    set(at);
    CHECK(gradient == doctest::Approx((above - below) / (2 * h)).epsilon(1e-6).scale(1));
  }

  double loss() {
    REQUIRE(call_.forward(kernel_, problem_.view()).ok());
    double sum = 0;
    for (std::size_t i = 0; i < call_.out.size(); ++i) sum += call_.out[i] * call_.d_out[i];
    return sum;
  }

  Kernel const& kernel_;
  problem_type& problem_;
  attention_call<double> call_;
};

template <class Kernel>
void check_slopes(Kernel const& kernel, typename slopes<Kernel>::problem_type& problem) {
  slopes<Kernel>(kernel, problem).check();
}

}  // namespace support
