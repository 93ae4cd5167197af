// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The gradients of the whole model against central differences, in double, for every sampler.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/thread_pool.hpp>

#include "model.hpp"
#include "support/exact_numbers.hpp"
#include "tiny.hpp"

namespace {

using model = lm::trainee<double, strata::any_sampler, strata::reference_attention>;

/// Moves a tensor along a direction of length 1 and compares the slope of the loss with what the
/// gradient says.
void check_slope(model& m, strata::route_plan const& plan, lm::token_batch const& batch,
                 lm::tensor_entry const& entry, std::uint32_t draw,
                 lm::dropout const& dropped = {}) {
  constexpr double step = 1e-5;
  auto const weights = m.weights().tensor(entry);
  auto const gradient = m.gradients().tensor(entry);
  std::vector<double> direction(weights.size());
  double length = 0;
  for (std::size_t i = 0; i < direction.size(); ++i) {
    double numbers[4] = {};
    lm::detail::normals(strata::draw_words({draw}, static_cast<std::uint32_t>(i)), numbers);
    direction[i] = numbers[0];
    length += numbers[0] * numbers[0];
  }
  for (auto& d : direction) d /= std::sqrt(length);
  std::vector<double> const kept(weights.begin(), weights.end());
  auto const loss_at = [&](double distance) {
    for (std::size_t i = 0; i < kept.size(); ++i) weights[i] = kept[i] + distance * direction[i];
    return m.forward(plan, batch, 1, dropped);
  };
  auto const slope = (loss_at(step) - loss_at(-step)) / (2 * step);
  double expected = 0, size = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    expected += gradient[i] * direction[i];
    size += gradient[i] * gradient[i];
    weights[i] = kept[i];
  }
  INFO(entry.name);
  CHECK(std::abs(slope - expected) < 1e-7 * (std::sqrt(size) + 1e-2));
}

void check_all_tensors(lm::model_config const& config, tiny::drawn const& drawn) {
  INFO(drawn.name);
  strata::thread_pool pool(1);
  tiny::tokens const tokens(config, 2, config.context);
  model m(config, strata::any_sampler(), {2, config.context}, pool);
  tiny::set_lively_weights(m.weights());
  auto const loss = m.forward(drawn.plan, tokens.batch());
  CHECK(loss == m.loss(drawn.plan, tokens.batch()));
  m.forward(drawn.plan, tokens.batch());
  m.backward(drawn.plan);
  for (auto const& entry : m.weights().table().entries)
    for (std::uint32_t draw = 0; draw < 2; ++draw)
      check_slope(m, drawn.plan, tokens.batch(), entry, draw);
}

}  // namespace

TEST_CASE("gradients are the slopes of the loss, whatever the route") {
  for (auto const& drawn : tiny::plans_of_all_samplers(tiny::shape()))
    check_all_tensors(tiny::shape(), drawn);
}

TEST_CASE("gradients are the slopes of the loss with QK-norm, a free head and a window") {
  for (auto const& drawn : tiny::plans_of_all_samplers(tiny::shape_with_options()))
    check_all_tensors(tiny::shape_with_options(), drawn);
}

TEST_CASE("gradients are the slopes of the loss of what dropout leaves, and run again the same") {
  auto const config = tiny::shape_with_options();
  strata::thread_pool pool(1);
  tiny::tokens const tokens(config, 2, config.context);
  lm::dropout const dropped(.3, {7, 3, 1});
  for (auto const& drawn : tiny::plans_of_all_samplers(config)) {
    INFO(drawn.name);
    model m(config, strata::any_sampler(), {2, config.context}, pool);
    tiny::set_lively_weights(m.weights());
    CHECK(m.forward(drawn.plan, tokens.batch(), 1, dropped) != m.loss(drawn.plan, tokens.batch()));
    m.forward(drawn.plan, tokens.batch(), 1, dropped);
    m.recompute(drawn.plan, 1, 3);
    m.backward(drawn.plan);
    for (auto const& entry : m.weights().table().entries)
      check_slope(m, drawn.plan, tokens.batch(), entry, 0, dropped);
  }
}

TEST_CASE("the plans that gradients are checked on do share, chain and leave layers unread") {
  int unread = 0, chains = 0, later_readers = 0;
  for (auto const& [name, plan] : tiny::plans_of_all_samplers(tiny::shape())) {
    unread += tiny::unread(plan);
    for (int l = 0; l < plan.num_layers; ++l) {
      auto const source = plan.layers[l].k.source.index;
      chains += plan.layers[source].k.source.index != source;
      later_readers += source != l && !plan.layers[l].k.last_reader;
    }
  }
  CHECK(unread > 5);
  CHECK(chains > 0);
  CHECK(later_readers > 3);
}

TEST_CASE("a gradient is of the weighted mean, and is added") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const plan = tiny::plans_of_all_samplers(config)[2].plan;
  tiny::tokens const all(config, 4, 7);
  model m(config, strata::any_sampler(), {4, 7}, pool);
  tiny::set_lively_weights(m.weights());
  auto const whole_loss = m.forward(plan, all.batch());
  m.backward(plan);
  std::vector<double> const whole(m.gradients().values().begin(), m.gradients().values().end());
  for (auto& g : m.gradients().values()) g = 0;
  double sum = 0;
  for (int part = 0; part < 2; ++part) {
    lm::token_batch const half{all.inputs.data() + part * 14, all.targets.data() + part * 14, 2, 7};
    sum += m.forward(plan, half, 0.5) / 2;
    m.backward(plan);
  }
  CHECK(sum == doctest::Approx(whole_loss).epsilon(1e-12));
  double worst = 0;
  for (std::size_t i = 0; i < whole.size(); ++i)
    support::keep_worst(worst, std::abs(whole[i] - m.gradients().values()[i]));
  CHECK(worst < 1e-13);
}

// With the gradient into sources stopped, a layer's K and V see only what the layer itself reads of
// them; everything below it still gets the whole gradient of the stream.
TEST_CASE("stop_source_gradient leaves K and V weights to the layers that read themselves") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  std::int32_t const sources[] = {0, 0, 2, 2,
                                  1};  // 0 and 2 read themselves; 1 is read, not by itself
  auto const plan =
      strata::make_plan(strata::recorded_route(sources), config.classes(), {}).value();
  tiny::tokens const tokens(config, 2, 7);
  model m(config, strata::any_sampler(), {2, 7}, pool);
  tiny::set_lively_weights(m.weights());
  auto const gradients = [&](bool stop) {
    m.router().stop_source_gradient(stop);
    for (auto& g : m.gradients().values()) g = 0;
    m.forward(plan, tokens.batch());
    m.backward(plan);
    std::vector<double> norms;
    for (int l = 0; l < config.layers; ++l) {
      double sum = 0;
      for (std::int64_t i = 0; i < config.kv_dim() * config.dim; ++i)
        sum += std::abs(m.gradients().weights().layer[static_cast<std::size_t>(l)].wk[i]);
      norms.push_back(sum);
    }
    return norms;
  };
  auto const flowing = gradients(false), stopped = gradients(true);
  for (int l : {0, 1, 2}) CHECK(flowing[static_cast<std::size_t>(l)] > 0);
  for (int l : {3, 4}) CHECK(flowing[static_cast<std::size_t>(l)] == 0);  // unread
  for (int l : {0, 2}) {
    CHECK(stopped[static_cast<std::size_t>(l)] > 0);
    CHECK(stopped[static_cast<std::size_t>(l)] != flowing[static_cast<std::size_t>(l)]);
  }
  CHECK(stopped[1] == 0);
}

namespace {

/// Logits of the last `loss` as distributions: [rows, vocab].
std::vector<double> distributions(model const& m, std::int64_t rows) {
  auto const vocab = std::int64_t{m.config().vocab};
  std::vector<double> out(m.memory().pass.logits, m.memory().pass.logits + rows * vocab);
  for (std::int64_t r = 0; r < rows; ++r) {
    double* const row = out.data() + r * vocab;
    double total = 0;
    for (std::int64_t i = 0; i < vocab; ++i) total += row[i] = std::exp(row[i]);
    for (std::int64_t i = 0; i < vocab; ++i) row[i] /= total;
  }
  return out;
}

}  // namespace

TEST_CASE("rows without a target count neither in the loss nor in its gradients") {
  auto const config = tiny::shape();
  auto const plan = tiny::plans_of_all_samplers(config)[2].plan;
  strata::thread_pool pool(1);
  tiny::tokens both(config, 2, config.context);
  model m(config, strata::any_sampler(), {2, config.context}, pool),
      alone(config, strata::any_sampler(), {1, config.context}, pool);
  for (auto* const one : {&m, &alone}) tiny::set_lively_weights(one->weights());
  auto first = both.batch();
  first.num_seqs = 1;
  auto const expected = alone.forward(plan, first);
  alone.backward(plan);
  for (std::int32_t i = 0; i < config.context; ++i)
    both.targets[static_cast<std::size_t>(config.context + i)] = lm::no_target;
  CHECK(m.forward(plan, both.batch()) == doctest::Approx(expected).epsilon(1e-12));
  m.backward(plan);
  for (std::size_t i = 0; i < m.gradients().values().size(); ++i)
    CHECK(m.gradients().values()[i] ==
          doctest::Approx(alone.gradients().values()[i]).epsilon(1e-9));
}

TEST_CASE("what learns from predictions that were kept: gradients are the slopes of both losses") {
  constexpr double share = .3;
  auto const config = tiny::shape();
  auto const plans = tiny::plans_of_all_samplers(config);
  auto const &teacher = plans[0].plan, &student = plans[2].plan;
  strata::thread_pool pool(1);
  tiny::tokens const tokens(config, 2, config.context);
  auto const batch = tokens.batch();
  model m(config, strata::any_sampler(), {2, config.context}, pool);
  tiny::set_lively_weights(m.weights());
  m.loss(teacher, batch);
  auto const kept = distributions(m, batch.rows());
  m.forward(teacher, batch, .5);
  m.keep_predictions();
  m.forward(student, batch, .5);
  m.learn_from_kept(0, share);
  m.backward(student);
  auto const loss = [&] {
    auto const mean = m.loss(student, batch);
    auto const now = distributions(m, batch.rows());
    double cross = 0;
    for (std::size_t i = 0; i < now.size(); ++i) cross -= kept[i] * std::log(now[i]);
    return .5 * ((1 - share) * mean + share * cross / static_cast<double>(batch.rows()));
  };
  for (auto const& entry : m.weights().table().entries) {
    INFO(entry.name);
    auto const gradient = m.gradients().tensor(entry);
    auto const at = gradient.size() / 2;
    auto& weight = m.weights().tensor(entry)[at];
    auto const before = weight;
    weight = before + 1e-5;
    auto const above = loss();
    weight = before - 1e-5;
    auto const slope = (above - loss()) / 2e-5;
    weight = before;
    CHECK(std::abs(slope - gradient[at]) < 1e-8);
  }
}
