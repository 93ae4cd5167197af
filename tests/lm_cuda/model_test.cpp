// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A whole training pass of the model on a device, its bodies run on the host, against the model on
// the host in double, whose own gradients are those of central differences (lm/gradient_test.cpp).
// Weights are numbers of bf16 on both sides; what lies between is rounded to bf16 on one of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/routing/recorded_route.hpp>
#include <strata/thread_pool.hpp>

#include "cuda/device_model.hpp"
#include "host_machine.hpp"
#include "lm/tiny.hpp"
#include "model.hpp"
#include "optimizer.hpp"
#include "support/sanitized.hpp"

namespace {

using device_model = lm::cuda::device_trainee<bodies::host_machine>;
using host_model = lm::trainee<double, strata::any_sampler, strata::reference_attention>;

/// Sizes that are moved eight numbers at a time, and everything optional.
lm::model_config grouped_shape() {
  auto c = tiny::shape_with_options();
  c.layers = 3;
  c.dim = 24;
  c.head_dim = 16;
  c.mlp = 40;
  c.vocab = 32;
  c.kv_heads = 2;
  return c;
}

struct pair {
  lm::model_config config;
  strata::thread_pool pool{1};
  bodies::host_machine machine;
  host_model host;
  device_model device;
  tiny::tokens tokens;

  explicit pair(lm::model_config const& c, strata::any_sampler const& sampler = {})
      : config(c),
        host(c, sampler, {2, c.context}, pool),
        device(machine, c, sampler, {2, c.context}),
        tokens(c, 2, c.context) {
    tiny::set_lively_weights(host.weights());
    for (auto const& e :
         host.weights().table().entries)  // but calm enough that roundings stay small
      if (e.role != lm::tensor_role::norm)
        for (auto& w : host.weights().tensor(e)) w *= .6;
    std::vector<float> masters;
    for (auto& w : host.weights().values()) {
      auto const rounded = strata::to_float(strata::to_bfloat16(static_cast<float>(w)));
      w = rounded;
      masters.push_back(rounded);
    }
    device.state().set_masters(masters);
  }

  /// Both gradients of a tensor, apart by a fraction of its length.
  double distance(lm::tensor_entry const& e) {
    double off = 0, size = 0;
    auto const expected = host.gradients().tensor(e);
    float const* const got = device.state().gradients() + e.offset;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      off += std::pow(expected[i] - got[i], 2);
      size += std::pow(expected[i], 2);
    }
    return size == 0 ? std::sqrt(off) : std::sqrt(off / size);
  }
};

void check_pass(pair& p, strata::route_plan const& plan, lm::dropout const& dropped = {}) {
  for (auto& g : p.host.gradients().values()) g = 0;
  auto const expected = p.host.forward(plan, p.tokens.batch(), 1, dropped);
  p.host.backward(plan);
  p.device.start_step();
  p.device.forward(plan, p.tokens.batch(), 1, dropped);
  p.device.backward(plan);
  CHECK(p.device.step_loss() == doctest::Approx(expected).epsilon(.01));
  // Some ten roundings of 2^-9 lie between the ends of a pass, and a chain of products makes more of
  // them; a gradient that is missing, doubled or another's is off by half and more.
  auto const& entries = p.host.weights().table().entries;
  double sum = 0;
  for (auto const& e : entries) {
    INFO(e.name);
    auto const off = p.distance(e);
    CHECK(off < .2);
    sum += off;
  }
  CHECK(sum / static_cast<double>(entries.size()) < .1);
  CHECK(sum > 0);
  CHECK(p.device.loss(plan, p.tokens.batch()) ==
        doctest::Approx(p.host.loss(plan, p.tokens.batch())).epsilon(.01));
}

}  // namespace

TEST_CASE("a pass on a device is the host's, up to roundings, whatever the route") {
  for (auto const& config : {tiny::shape(), tiny::shape_with_options(), grouped_shape()}) {
    pair p(config);
    if (config.layers < 5) {
      for (auto const* routing : {"self", "rcla:0.4", "cla:2"}) {
        INFO(routing);
        auto const sampler = strata::parse_routing(routing, config.classes()).value();
        check_pass(p, strata::make_plan(sampler, config.classes(), {7, 4}).value());
      }
    } else {
      for (auto const& drawn : support::sampled(tiny::plans_of_all_samplers(config), 1)) {
        INFO(drawn.name);
        check_pass(p, drawn.plan);
      }
    }
  }
}

TEST_CASE("a pass on a device drops what the host's drops, and its score drops nothing") {
  for (auto const& config : {tiny::shape_with_options(), grouped_shape()}) {
    pair p(config);
    auto const sampler = strata::parse_routing("rcla:0.4", config.classes()).value();
    auto const plan = strata::make_plan(sampler, config.classes(), {7, 4}).value();
    check_pass(p, plan, {.2, {5, 6, 7}});
  }
}

TEST_CASE("what nobody reads has no gradient, and one pass after the other adds up") {
  auto const config = tiny::shape_with_options();
  pair p(config);
  std::int32_t const sources[] = {0, 0, 0, 3, 3};
  auto const plan =
      strata::make_plan(strata::recorded_route(sources), config.classes(), {}).value();
  auto const all = p.tokens.batch();
  auto const& table = p.host.weights().table();
  auto const gradients = [&] {
    float const* const g = p.device.state().gradients();
    return std::vector<float>(g, g + table.size);
  };
  p.device.start_step();
  p.device.forward(plan, all);
  p.device.backward(plan);
  auto const whole = gradients();
  auto const whole_loss = p.device.step_loss();
  for (int l : {1, 2, 4})
    for (std::int64_t i = 0; i < config.kv_dim() * config.dim; ++i)
      CHECK(p.device.state().gradient_weights().layer[static_cast<std::size_t>(l)].wk[i] == 0);
  p.device.start_step();
  for (int part = 0; part < 2; ++part) {
    lm::token_batch const half{all.inputs + part * all.length, all.targets + part * all.length, 1,
                               all.length};
    p.device.forward(plan, half, .5);
    p.device.backward(plan);
  }
  CHECK(p.device.step_loss() == doctest::Approx(whole_loss).epsilon(1e-6));
  auto const halves = gradients();
  double off = 0, size = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    off += std::pow(whole[i] - halves[i], 2);
    size += std::pow(whole[i], 2);
  }
  CHECK(std::sqrt(off / size) < 1e-5);  // rows are apart: what is rounded is the same
}

TEST_CASE("a gradient into sources that is stopped starts its sum at zero") {
  auto const config = tiny::shape();
  pair p(config);
  std::int32_t const sources[] = {0, 0, 2, 2, 1};
  auto const plan =
      strata::make_plan(strata::recorded_route(sources), config.classes(), {}).value();
  p.host.router().stop_source_gradient(true);
  p.device.router().stop_source_gradient(true);
  check_pass(p, plan);
  for (std::int64_t i = 0; i < config.kv_dim() * config.dim; ++i)
    CHECK(p.device.state().gradient_weights().layer[1].wk[i] == 0);
}

TEST_CASE("the same step has the same bits, whatever the order of threads") {
  auto const config = grouped_shape();
  auto const step = [&](simt::order order) {
    pair p(config);
    p.machine.order = order;
    auto const sampler = strata::parse_routing("rcla:0.4", config.classes()).value();
    auto const plan = strata::make_plan(sampler, config.classes(), {7, 4}).value();
    p.device.start_step();
    p.device.forward(plan, p.tokens.batch());
    p.device.backward(plan);
    p.device.state().update({}, 1e-3, 0);
    std::vector<float> masters(static_cast<std::size_t>(p.host.weights().table().size));
    auto first = masters, second = masters;
    p.device.state().get(masters, first, second);
    return masters;
  };
  auto const masters = step(simt::order::ascending);
  CHECK(step(simt::order::descending) == masters);
  CHECK(step(simt::order::shuffled) == masters);
}

TEST_CASE("training on a device loses what training on the host loses") {
  auto const config = tiny::shape_with_options();
  pair p(config);
  lm::adamw<double> optimizer(config, p.pool);
  lm::optimizer_options o;
  o.clip = 1;
  auto const sampler = strata::parse_routing("rcla:0.5", config.classes()).value();
  double first = 0, host_loss = 0, host_sum = 0, device_sum = 0;
  for (std::uint64_t step = 0; step < 30; ++step) {
    auto const plan = strata::make_plan(sampler, config.classes(), {7, step}).value();
    auto const batch = p.tokens.batch();
    for (auto& g : p.host.gradients().values()) g = 0;
    host_loss = p.host.forward(plan, batch);
    if (step == 0) first = host_loss;
    p.host.backward(plan);
    auto const norm = optimizer.update(p.host.weights(), p.host.gradients(), o, .01,
                                       static_cast<std::int64_t>(step));
    p.device.start_step();
    p.device.forward(plan, batch);
    p.device.backward(plan);
    p.device.state().update(o, .01, static_cast<std::int64_t>(step));
    host_sum += host_loss;
    device_sum += p.device.step_loss();
    if (step == 0) CHECK(p.device.state().norm() == doctest::Approx(norm).epsilon(.06));
  }
  CHECK(device_sum == doctest::Approx(host_sum).epsilon(.03));
  CHECK(host_loss < first / 2);  // the batch is learnt by heart
}
