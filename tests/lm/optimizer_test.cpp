// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// AdamW against the textbook, one number at a time in double; clipping, norms and schedules.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <strata/random.hpp>
#include <strata/thread_pool.hpp>

#include "optimizer.hpp"
#include "support/exact_numbers.hpp"
#include "tiny.hpp"

namespace {

double noise(std::uint32_t i, std::uint64_t step) {
  auto const words = strata::draw_words({17, step}, i);
  return words.word[0] / 2147483648.0 - 1;
}

/// The formula of the paper, for one parameter.
struct scalar_adamw {
  double m = 0, v = 0;
  void update(double& w, double g, lm::optimizer_options const& o, double lr, int t, bool decays) {
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    auto const m_hat = m / (1 - std::pow(o.beta1, t)), v_hat = v / (1 - std::pow(o.beta2, t));
    w -= lr * (m_hat / (std::sqrt(v_hat) + o.epsilon) + (decays ? o.weight_decay * w : 0));
  }
};

template <class T>
double worst_after_steps(lm::optimizer_options const& o, std::int32_t threads, int steps) {
  strata::thread_pool pool(threads);
  auto const config = tiny::shape_with_options();
  lm::parameters<T> weights(config), gradient(config);
  lm::initialise(weights, 5);
  std::vector<double> expected(weights.values().begin(), weights.values().end());
  std::vector<scalar_adamw> state(expected.size());
  std::vector<char> decays(expected.size()), exists(expected.size());
  for (auto const& e : weights.table().entries)
    for (std::int64_t i = e.offset; i < e.offset + e.size(); ++i) {
      decays[static_cast<std::size_t>(i)] = e.name.find("norm") == std::string::npos;
      exists[static_cast<std::size_t>(i)] = 1;
    }
  lm::adamw<T> optimizer(config, pool);
  double worst = 0;
  for (int t = 1; t <= steps; ++t) {
    double squares = 0;
    std::vector<double> g(expected.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      auto const value = static_cast<T>(noise(static_cast<std::uint32_t>(i), t));
      g[i] = exists[i] && i % 7 != 0 ? static_cast<double>(value) : 0;  // some have no gradient
      gradient.values()[i] = static_cast<T>(g[i]);
      squares += g[i] * g[i];
    }
    auto const scale = o.clip > 0 ? std::min(1.0, o.clip / std::sqrt(squares)) : 1.0;
    auto const norm = optimizer.update(weights, gradient, o, 0.01, t - 1);
    CHECK(norm == doctest::Approx(std::sqrt(squares)).epsilon(1e-6));
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (exists[i]) state[i].update(expected[i], g[i] * scale, o, 0.01, t, decays[i]);
      support::keep_worst(worst, std::abs(expected[i] - static_cast<double>(weights.values()[i])));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("AdamW is the textbook's") {
  lm::optimizer_options o;
  for (double clip : {0.0, 0.1, 1e9}) {
    o.clip = clip;
    CHECK(worst_after_steps<double>(o, 2, 5) < 1e-14);
    CHECK(worst_after_steps<float>(o, 2, 5) < 1e-6);
  }
}

TEST_CASE("norm gains do not decay, matrices without a gradient do") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape_with_options();
  lm::parameters<double> weights(config), gradient(config);
  lm::initialise(weights, 5);
  std::vector<double> const before(weights.values().begin(), weights.values().end());
  lm::adamw<double> optimizer(config, pool);
  optimizer.update(weights, gradient, {}, 0.5, 0);
  for (auto const& e : weights.table().entries) {
    CAPTURE(e.name);
    auto const i = static_cast<std::size_t>(e.offset);
    bool const norm = e.name.find("norm") != std::string::npos;
    CHECK(weights.values()[i] == doctest::Approx(before[i] * (norm ? 1 : 1 - 0.5 * 0.1)));
  }
}

TEST_CASE("a gradient that is not finite changes nothing") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  lm::parameters<float> weights(config), gradient(config);
  lm::initialise(weights, 5);
  std::vector<float> const before(weights.values().begin(), weights.values().end());
  lm::adamw<float> optimizer(config, pool);
  for (float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    gradient.values().back() = bad;
    auto const last = weights.table().entries.back();
    gradient.tensor(last)[static_cast<std::size_t>(last.size() - 1)] = bad;
    CHECK_THROWS_AS(optimizer.update(weights, gradient, {}, 0.01, 0), lm::failure);
    CHECK(std::equal(before.begin(), before.end(), weights.values().begin()));
    for (auto const v : optimizer.second_moment().values()) CHECK(v == 0);
  }
}

TEST_CASE("the learning rate rises, then falls to 0") {
  lm::optimizer_options o;
  o.lr = 2;
  o.warmup = 0.1;
  for (auto form : {lm::decay_form::cosine, lm::decay_form::linear}) {
    o.decay = form;
    for (std::int64_t step = 0; step < 10; ++step)
      CHECK(lm::learning_rate(o, step, 100) ==
            doctest::Approx(0.2 * static_cast<double>(step + 1)));
    CHECK(lm::learning_rate(o, 10, 100) == doctest::Approx(2));
    CHECK(lm::learning_rate(o, 55, 100) == doctest::Approx(1));  // half-way down, both
    CHECK(lm::learning_rate(o, 99, 100) > 0);
    CHECK(lm::learning_rate(o, 99, 100) < 0.03);
  }
  CHECK(lm::learning_rate(o, 77, 100) == doctest::Approx(2 * (1 - 67.0 / 90)));
  o.warmup = 0;
  CHECK(lm::learning_rate(o, 0, 1) == 2);
}

TEST_CASE("the vectorised square root and exponential are accurate") {
  double worst_root = 0, worst_exp = 0;
  for (float x = 1.2e-38F; x < 1e38F; x *= 1.37F)
    worst_root = std::max(
        worst_root, std::abs(lm::detail::square_root(x) / std::sqrt(static_cast<double>(x)) - 1));
  for (float x = -87; x <= 87; x += 0.0173F)
    worst_exp = std::max(
        worst_exp, std::abs(lm::detail::exponential(x) / std::exp(static_cast<double>(x)) - 1));
  CHECK(worst_root < 3e-7);
  CHECK(worst_exp < 3e-7);
  CHECK(lm::detail::square_root(0.0F) == 0);
  CHECK(lm::detail::exponential(0.0F) == 1);
  CHECK(lm::detail::exponential(-1e30F) < 1.7e-38F);
  CHECK(std::isnan(lm::detail::exponential(std::nanf(""))));
  CHECK(std::isfinite(lm::detail::exponential(std::numeric_limits<float>::infinity())));
}
