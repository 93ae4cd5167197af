// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 7: gradients through routed attention, from nothing but Q, K, V, O and LSE, are those of a
// tape that keeps everything, for every sampler, kernel, model and split of the work.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/reference.hpp>
#include <strata/routing/recorded_route.hpp>

#include "support/print.hpp"
#include "support/samplers.hpp"
#include "support/tape_network.hpp"

using strata::reference_attention;
using strata::route_plan;
using strata::cpu::blocked_attention;

namespace {

std::vector<support::toy_shape> trained_shapes() {
  auto const wide = support::toy_kind(2, 4, 3), narrow = support::toy_kind(1, 3, 5);
  auto const windowed = support::toy_kind(2, 4, 3, 3);
  auto const linear = support::toy_linear();
  return {
      {.name = "uniform", .layers = std::vector(5, wide), .width = 6},
      {.name = "two classes, windows, a layer without K/V",
       .layers = {wide, narrow, linear, windowed, wide, narrow, windowed},
       .width = 5,
       .softcap = 2},
      {.name = "one layer", .layers = {wide}, .width = 4},
      {.name = "sinks", .layers = std::vector(4, narrow), .width = 6, .sinks = true},
  };
}

support::model model_of(support::toy_shape const& shape) { return {shape.name, shape.layers}; }

std::vector<std::int32_t> column(route_plan const& plan,
                                 strata::route strata::layer_step::* which) {
  std::vector<std::int32_t> sources;
  for (std::int32_t l = 0; l < plan.num_layers; ++l)
    sources.push_back((plan.layers[l].*which).source.index);
  return sources;
}

template <class T>
double worst_weight_error(std::vector<support::layer_weights<T>> const& a,
                          std::vector<support::layer_weights<double>> const& b) {
  double worst = 0;
  for (std::size_t l = 0; l < a.size(); ++l)
    for (auto const error :
         {support::worst_error(a[l].q, b[l].q), support::worst_error(a[l].k, b[l].k),
          support::worst_error(a[l].v, b[l].v), support::worst_error(a[l].o, b[l].o)})
      worst = std::fmax(worst, error);
  return worst;
}

template <class T>
bool all_nan(std::vector<T> const& x) {
  for (auto const y : x)
    if (!std::isnan(y)) return false;
  return true;
}

/// Everything that law 7 says about one pass.
template <class Router>
void check_pass(support::network<double> const& net, Router const& router, route_plan const& plan,
                support::share_executor exec) {
  support::tape_network tape(net, column(plan, &strata::layer_step::k),
                             column(plan, &strata::layer_step::v));
  auto const expected = tape.run();
  support::routed_pass pass(net, router, plan, exec);
  CHECK(support::worst_error(pass.forward(), expected.x) < 1e-13);
  auto const grads = pass.backward();
  CHECK(pass.state.ok());
  CHECK(worst_weight_error(grads, expected.grads) < 1e-11);  // sums of some ten layers' roundings
  CHECK(support::worst_error(pass.dx, expected.dx) < 1e-11);
  for (std::size_t l = 0; l < net.layers.size(); ++l) {
    CAPTURE(l);
    if (!net.shape.layers[l].has_kv) continue;
    auto const& [k, v] = plan.layers[l];
    if (k.stored) CHECK(support::worst_error(pass.dk[l], expected.dk[l]) < 1e-11);
    if (v.stored) CHECK(support::worst_error(pass.dv[l], expected.dv[l]) < 1e-11);
    // Unread: no projection was computed, its memory never touched, its gradient exactly zero.
    if (!k.stored) CHECK((all_nan(pass.k[l]) && all_nan(pass.dk[l])));
    if (!v.stored) CHECK((all_nan(pass.v[l]) && all_nan(pass.dv[l])));
    std::vector<double> const k_zero(grads[l].k.size()), v_zero(grads[l].v.size());
    if (!k.stored) CHECK((support::same_bits(grads[l].k, k_zero) && expected.grads[l].k == k_zero));
    if (!v.stored) CHECK((support::same_bits(grads[l].v, v_zero) && expected.grads[l].v == v_zero));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("routed gradients are the tape's", Sampler, SUPPORT_ALL_SAMPLERS) {
  std::uint32_t micro_batch = 0;
  for (auto const& shape : trained_shapes()) {
    CAPTURE(shape.name);
    support::network<double> const net(shape);
    auto const sampler = support::sampler_for<Sampler>::make(model_of(shape));
    strata::router<Sampler, reference_attention> const router(sampler, shape.classes());
    strata::router<Sampler, blocked_attention> const blocked(sampler, shape.classes());
    for (auto const& exec : support::all_executors()) {
      auto const plan = router.draw({.seed = 9, .step = 3, .micro_batch = ++micro_batch});
      REQUIRE(plan.ok());
      CAPTURE(*plan);
      check_pass(net, router, *plan, exec);
      check_pass(net, blocked, *plan, exec);
    }
  }
}

TEST_CASE_TEMPLATE("routed gradients: chains, several readers, separate K and V", Kernel,
                   reference_attention, blocked_attention) {
  auto const shape = trained_shapes()[0];
  support::network<double> const net(shape);
  struct routes {
    std::vector<std::int32_t> k, v;
  };
  for (auto const& [k, v] :
       {routes{{0, 0, 1, 2, 3}, {0, 0, 1, 2, 3}},  // each the one before
        routes{{0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}},  // all the first
        routes{{0, 1, 1, 1, 4}, {0, 1, 2, 0, 2}}, routes{{0, 1, 2, 3, 4}, {0, 0, 1, 1, 3}},
        routes{{0, 0, 2, 1, 2}, {0, 1, 0, 3, 3}}}) {
    strata::recorded_route const k_route(k), v_route(v);
    auto const plan = make_plan(k_route, v_route, shape.classes(), strata::draw_key{});
    REQUIRE(plan.ok());
    CAPTURE(*plan);
    strata::router<strata::recorded_route, Kernel> const router(k_route, shape.classes());
    check_pass(net, router, *plan, {2, false});
  }
}

// The blocked kernel takes 64 keys at a time, and 48 rows of queries.
TEST_CASE_TEMPLATE("routed gradients: sequences of many tiles", Kernel, reference_attention,
                   blocked_attention) {
  for (auto const& shape : {trained_shapes()[0], trained_shapes()[1]}) {
    CAPTURE(shape.name);
    support::network<double> const net(shape, {2, 131});
    auto const sampler = support::sampler_for<strata::random_previous<>>::make(model_of(shape));
    strata::router<strata::random_previous<>, Kernel> const router(sampler, shape.classes());
    check_pass(net, router, *router.draw({.seed = 10}), {3, true});
  }
}

// A step of 1e-6 against a derivative: truncation 1e-12, cancellation 1e-10.
TEST_CASE_TEMPLATE("routed gradients are those of finite differences", Sampler,
                   SUPPORT_ALL_SAMPLERS) {
  for (auto const& shape : trained_shapes()) {
    CAPTURE(shape.name);
    support::network<double> net(shape, {1, 5});
    auto const sampler = support::sampler_for<Sampler>::make(model_of(shape));
    strata::router<Sampler, reference_attention> const router(sampler, shape.classes());
    auto const plan = *router.draw({.seed = 21, .step = 8});
    support::share_executor exec;
    auto const loss = [&] {
      return net.loss(support::routed_pass(net, router, plan, exec).forward());
    };
    support::routed_pass pass(net, router, plan, exec);
    pass.forward();
    auto const grads = pass.backward();
    support::number_stream numbers(33);
    for (std::size_t l = 0; l < net.layers.size(); ++l) {
      auto& w = net.layers[l];
      auto const& g = grads[l];
      std::pair<std::vector<double>*, std::vector<double> const*> const both[] = {
          {&w.q, &g.q}, {&w.k, &g.k}, {&w.v, &g.v}, {&w.o, &g.o}};
      for (auto const& [weights, gradient] : both)
        for (int sample = 0; sample < 4; ++sample) {
          auto const at = static_cast<std::size_t>(numbers.next() % weights->size());
          auto const kept = (*weights)[at];
          (*weights)[at] = kept + 1e-6;
          auto const above = loss();
          (*weights)[at] = kept - 1e-6;
          auto const below = loss();
          (*weights)[at] = kept;
          CAPTURE(l);
          CHECK((*gradient)[at] == doctest::Approx((above - below) / 2e-6).epsilon(1e-7));
        }
    }
  }
}
