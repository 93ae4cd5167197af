// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every kernel on numbers at the ends of what floats hold, forward and backward: within twice the
// error of the float reference, and gradients that are slopes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <strata/cache/codec.hpp>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/cpu_kernels.hpp"
#include "support/finite_differences.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"

namespace {

using support::as_size;
using support::attention_case;
using support::attention_problem;
using support::random_values;

/// Inputs, each made from a problem of common numbers.
template <class Problem>
struct extremes {
  Problem& x;

  void scale_queries(float factor) {
    for (auto& number : x.queries()) number *= factor;
  }
  void make_queries_positive() {
    for (auto& number : x.queries()) number = std::abs(number) + 0.1f;
  }
  void scale_k(float factor) {
    std::vector<float> k(as_size(x.shape().k_dim));
    support::for_each_token(x.view(), [&](auto s, auto h, auto t) {
      x.view().load_k(s, h, t, k.data());
      for (auto& number : k) number *= factor;
      x.write_k(s, h, t, k);
    });
  }
  void scale_v(float factor) {
    std::vector<float> v(as_size(x.shape().v_dim));
    support::for_each_token(x.view(), [&](auto s, auto h, auto t) {
      x.view().load_v(s, h, t, v.data());
      for (auto& number : v) number *= factor;
      x.write_v(s, h, t, v);
    });
  }
  /// Every `step`th key from `first` on, up to but without `last`, counted from the end if below 0.
  void fill_keys(float number, std::int32_t first, std::int32_t last, std::int32_t step = 1) {
    std::vector<float> const k(as_size(x.shape().k_dim), number);
    support::for_each_token(x.view(), [&](auto s, auto h, auto t) {
      auto const length = x.view().length(s, h);
      auto const from = first < 0 ? length + first : first;
      auto const to = last <= 0 ? length + last : last;
      if (t >= from && t < to && (t - from) % step == 0) x.write_k(s, h, t, k);
    });
  }
  /// A key that takes all of the weight of whoever sees it.
  void one_hot(std::int32_t token) {
    make_queries_positive();
    fill_keys(100, token, token + 1);
  }
};

template <class Problem>
struct extreme {
  char const* name;
  void (*apply)(extremes<Problem>);
};

template <class Problem>
std::vector<extreme<Problem>> extreme_inputs() {
  using e = extremes<Problem>;
  return {
      {"scores of 1e4", [](e x) { x.scale_queries(15000); }},
      {"scores near overflow", [](e x) { x.scale_queries(1e18f), x.scale_k(1e18f); }},
      {"scores of 5e3 that differ little",
       [](e x) {
         x.make_queries_positive();
         x.fill_keys(600, 0, 0);
         x.fill_keys(604, 1, 0, 3);
       }},
      {"the first key hot", [](e x) { x.one_hot(0); }},
      {"a key amid a tile hot", [](e x) { x.one_hot(37); }},
      {"the last key hot", [](e x) { x.one_hot(-1); }},
      {"equal keys", [](e x) { x.fill_keys(0.3f, 0, 0); }},
      {"queries of zero", [](e x) { x.scale_queries(0); }},
      {"keys of -infinity, whole tiles first",
       [](e x) { x.make_queries_positive(), x.fill_keys(-INFINITY, 0, 65); }},
      {"keys of -infinity, every third",
       [](e x) { x.make_queries_positive(), x.fill_keys(-INFINITY, 0, 0, 3); }},
      {"keys of -infinity, the last",
       [](e x) { x.make_queries_positive(), x.fill_keys(-INFINITY, -40, 0); }},
      {"keys of -infinity, all",
       [](e x) { x.make_queries_positive(), x.fill_keys(-INFINITY, 0, 0); }},
      {"denormal Q", [](e x) { x.scale_queries(1e-39f); }},
      {"denormal K", [](e x) { x.scale_k(1e-39f); }},
      {"denormal V", [](e x) { x.scale_v(1e-40f); }},
      {"denormal Q, K and V",
       [](e x) { x.scale_queries(1e-39f), x.scale_k(1e-39f), x.scale_v(1e-39f); }},
      {"huge V", [](e x) { x.scale_v(1e35f); }},
      {"huge V, equal scores", [](e x) { x.scale_queries(0), x.scale_v(1e35f); }},
      {"huge V, one hot", [](e x) { x.one_hot(20), x.scale_v(1e35f); }},
      {"sinks that take all", [](e x) { std::fill(x.x.sinks().begin(), x.x.sinks().end(), 1e4f); }},
      {"sinks of -infinity",
       [](e x) { std::fill(x.x.sinks().begin(), x.x.sinks().end(), -INFINITY); }},
  };
}

/// Few pairs with many keys, and many pairs with few.
std::vector<attention_case> extreme_shapes() {
  std::vector<attention_case> list = {{"decode", {600, 70}, {2, 1}, 8, 2, 64, 64},
                                      {"prefill", {130}, {50}, 3, 1, 72, 40}};
  for (std::size_t i = 0; i < 2; ++i) {
    list.push_back(list[i]);
    list.back().name += ", softcap";
    list.back().rule.softcap = 5;
    list.back().add_k = true;
    list.push_back(list[i]);
    list.back().name += ", sinks, window";
    list.back().rule.window = 90;
    list.back().add_v = list.back().sinks = true;
  }
  return list;
}

template <class Codec>
void check_extremes(std::size_t first_shape) {
  using problem_type = attention_problem<Codec>;
  for (auto const& c : support::sampled(extreme_shapes(), first_shape))
    for (auto const& input : support::sampled(extreme_inputs<problem_type>(), 1)) {
      std::string const name = input.name;
      CAPTURE(name);
      // A cap makes -infinity an ordinary score; its slope of 0 times the key is no number.
      if (c.rule.softcap > 0 && name.starts_with("keys of -infinity")) continue;
      support::check_bound<problem_type>(c, [&](problem_type& problem) { input.apply({problem}); });
    }
}

}  // namespace

TEST_CASE("kernels: numbers at the ends, f32") { check_extremes<strata::f32_codec>(5); }
TEST_CASE("kernels: numbers at the ends, bf16") { check_extremes<strata::bf16_codec>(3); }

TEST_CASE("kernels: the largest float as a value comes out as it is") {
  using problem_type = attention_problem<strata::f32_codec>;
  constexpr float largest = (std::numeric_limits<float>::max)();
  for (std::int32_t const rows : {1, 50}) {
    problem_type problem({"", {600}, {rows}, 2, 1, 64, 64});
    extremes<problem_type>{problem}.one_hot(3);
    std::vector<float> value(64, largest);
    value[1] = -largest;
    problem.write_v(0, 0, 3, value);
    support::for_each_kernel([&](auto const& kernel) {
      support::attention_call<float> call(problem);
      REQUIRE(call.forward(kernel, problem.view()).ok());
      for (std::size_t i = 0; i < call.out.size(); i += 64)
        CHECK(std::equal(value.begin(), value.end(), &call.out[i]));
    });
  }
}

TEST_CASE("kernels: gradients are the slopes of the loss, at the ends too") {
  using problem_type = attention_problem<strata::f64_codec>;
  for (double const softcap : {0.0, 0.5})
    for (auto const& input : extreme_inputs<problem_type>()) {
      std::string const name = input.name;
      bool const large = name.starts_with("huge") || name.starts_with("scores");
      if (large) continue;  // differences of numbers so large say nothing
      if (softcap > 0 && name.starts_with("keys of -infinity")) continue;
      CAPTURE(name);
      attention_case c{"", {5, 3}, {5, 2}, 4, 2, 3, 2};
      c.rule.softcap = softcap;
      c.sinks = name.starts_with("sinks");
      support::for_each_kernel([&](auto const& kernel) {
        problem_type problem(c);
        input.apply({problem});
        support::check_slopes(kernel, problem);
      });
    }
}
