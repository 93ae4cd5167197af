// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 7 to the bit: the sums of dK and dV are started by the highest reader and grow in descending
// layer order, whatever executes them; a switch keeps them from other layers' K and V; recomputed
// segments need their sources and nothing else.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/reference.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/routing/recorded_route.hpp>

#include "support/print.hpp"
#include "support/tape_network.hpp"

using strata::layer_id;
using strata::reference_attention;
using strata::route_plan;
using strata::cpu::blocked_attention;

namespace {

template <class Kernel>
using router = strata::router<strata::random_previous<>, Kernel>;

/// What a network computes with, and by which kernel.
template <class T, class Kernel>
struct trained {
  using number = T;
  using kernel = Kernel;
};

support::toy_shape six_layers() {
  support::toy_shape shape;
  shape.layers = std::vector(6, support::toy_kind(2, 4, 3));
  shape.width = 6;
  return shape;
}

template <class Kernel = reference_attention>
router<Kernel> six_layer_router() {
  return {strata::random_previous(0.4), six_layers().classes()};
}

/// Plans that differ in who reads whom, chains and unread layers among them.
std::vector<route_plan> drawn_plans() {
  auto const r = six_layer_router();
  std::vector<route_plan> plans;
  for (std::uint64_t step = 0; step < 6; ++step)
    plans.push_back(*r.draw({.seed = 4, .step = step}));
  return plans;
}

template <class T>
struct everything {
  std::vector<support::layer_weights<T>> grads;
  std::vector<T> dx;
  std::vector<std::vector<strata::accum_t<T>>> dk, dv;
};

template <class Pass>
auto gradients_of(Pass& pass) {
  pass.forward();
  auto grads = pass.backward();
  return everything<typename Pass::number>{std::move(grads), pass.dx, pass.dk, pass.dv};
}

template <class T>
bool same(everything<T> const& a, everything<T> const& b) {
  bool good = support::same_bits(a.dx, b.dx);
  for (std::size_t l = 0; l < a.grads.size(); ++l) {
    good = good && support::same_bits(a.grads[l].q, b.grads[l].q) &&
           support::same_bits(a.grads[l].k, b.grads[l].k) &&
           support::same_bits(a.grads[l].v, b.grads[l].v) &&
           support::same_bits(a.grads[l].o, b.grads[l].o);
    // As bytes: memory that nobody writes is NaN on both sides.
    good = good && support::same_bits(a.dk[l], b.dk[l]) && support::same_bits(a.dv[l], b.dv[l]);
  }
  return good;
}

#define TRAINED                                                              \
  trained<double, reference_attention>, trained<float, reference_attention>, \
      trained<double, blocked_attention>, trained<float, blocked_attention>

}  // namespace

TEST_CASE_TEMPLATE("gradients have the same bits whatever executes them", Trained, TRAINED) {
  support::network<typename Trained::number> const net(six_layers(), {3, 5});
  auto const r = six_layer_router<typename Trained::kernel>();
  for (auto const& plan : drawn_plans()) {
    CAPTURE(plan);
    support::share_executor one;
    support::routed_pass first(net, r, plan, one);
    auto const expected = gradients_of(first);
    for (auto exec : support::all_executors()) {
      support::routed_pass pass(net, r, plan, exec);
      CHECK(same(gradients_of(pass), expected));
    }
  }
}

// The sum as the law words it, with the stateless call that the router makes: for each source, its
// readers from the highest down, the first of them overwriting.
TEST_CASE_TEMPLATE("dK and dV are summed in descending layer order", Trained, TRAINED) {
  using T = typename Trained::number;
  typename Trained::kernel const kernel;
  auto const shape = six_layers();
  support::network<T> const net(shape, {2, 7});
  auto const r = six_layer_router<typename Trained::kernel>();
  support::share_executor exec;
  auto const& kv = shape.layers[0].kv;
  for (auto const& plan : drawn_plans()) {
    CAPTURE(plan);
    support::routed_pass pass(net, r, plan, exec);
    gradients_of(pass);
    // d_out of every layer, found once more on the way down.
    std::vector<std::vector<T>> d_outs(6);
    auto dx = net.wish;
    std::vector<std::vector<strata::accum_t<T>>> dk(6), dv(6);
    for (std::size_t l = 6; l-- > 0;) {
      auto const& rec = pass.record[l];
      auto const& w = net.layers[l];
      auto unused = w;
      dx = support::bend_backward(rec.h, std::move(dx));
      std::vector<T> d_out(rec.out.size()), dq(rec.q.size());
      support::multiply_backward(w.o, rec.out, rec.out.size() / 14, dx, d_out, unused.o);
      auto const s = static_cast<std::size_t>(plan.layers[l].k.source.index);
      bool const first = dk[s].empty();
      CHECK(first == plan.layers[l].k.last_reader);
      dk[s].resize(pass.dk[s].size());
      dv[s].resize(pass.dv[s].size());
      strata::query_rows<T> q{pass.queries(l).q, pass.queries(l).out, pass.queries(l).lse};
      q.num_seqs = 2;
      q.rows_per_seq = 7;
      q.q_heads = shape.q_heads;
      auto grad = strata::kv_grad<strata::accum_t<T>>::dense(dk[s].data(), dv[s].data(), 7,
                                                             kv.kv_heads, kv.k_dim, kv.v_dim);
      grad.add_k = grad.add_v = !first;
      auto const view = strata::contiguous_view(pass.k[s].data(), pass.v[s].data(), 2, 7,
                                                kv.kv_heads, kv.k_dim, kv.v_dim);
      support::workspace_memory workspace;
      auto const bytes = kernel.backward_workspace_bytes(q, view, 1);
      REQUIRE(strata::attend_backward(exec, kernel, q, view, d_out.data(), dq.data(), grad,
                                      workspace.get(bytes))
                  .ok());
      support::multiply_backward(w.q, rec.x, net.width(), dq, dx, unused.q);
      auto const narrow = [](auto const& d) { return std::vector<T>(d.begin(), d.end()); };
      if (!dk[l].empty()) {
        support::multiply_backward(w.k, rec.x, net.width(), narrow(dk[l]), dx, unused.k);
        support::multiply_backward(w.v, rec.x, net.width(), narrow(dv[l]), dx, unused.v);
        CHECK(support::same_bits(dk[l], pass.dk[l]));
        CHECK(support::same_bits(dv[l], pass.dv[l]));
      }
    }
  }
}

TEST_CASE_TEMPLATE("float gradients are the double ones within rounding", Kernel,
                   reference_attention, blocked_attention) {
  support::network<double> const exact(six_layers());
  support::network<float> net(six_layers());
  auto const narrow = [](std::vector<double> const& x) {
    return std::vector<float>(x.begin(), x.end());
  };
  auto const exactly = six_layer_router();
  auto const r = six_layer_router<Kernel>();
  support::share_executor exec;
  for (auto const& plan : drawn_plans()) {
    support::routed_pass pass(exact, exactly, plan, exec);
    support::routed_pass small(net, r, plan, exec);
    auto const expected = gradients_of(pass);
    auto const found = gradients_of(small);
    CHECK(support::worst_error(found.dx, expected.dx) < 1e-4);
    for (std::size_t l = 0; l < 6; ++l)
      CHECK(support::worst_error(found.grads[l].k, narrow(expected.grads[l].k)) < 1e-4);
  }
}

TEST_CASE_TEMPLATE("stop_source_gradient: only layers that read themselves train their K and V",
                   Kernel, reference_attention, blocked_attention) {
  auto const shape = six_layers();
  support::network<double> const net(shape);
  auto r = six_layer_router<Kernel>();
  auto plans = drawn_plans();
  // Layer 1 is read by 3, 4 and itself; layer 0 and 2 by others only.
  std::int32_t const sources[] = {0, 1, 0, 1, 1, 2};
  plans.push_back(*make_plan(strata::recorded_route(sources), shape.classes(), {}));
  std::int32_t const foreign[] = {0, 0, 1, 2, 3, 3};
  plans.push_back(*make_plan(strata::recorded_route(foreign), shape.classes(), {}));
  for (auto const& plan : plans) {
    CAPTURE(plan);
    std::vector<std::int32_t> from;
    for (std::int32_t l = 0; l < 6; ++l) from.push_back(plan.layers[l].k.source.index);
    auto const expected = support::tape_network(net, from, from, true).run();
    r.stop_source_gradient(true);
    for (auto exec : support::all_executors()) {
      support::routed_pass pass(net, r, plan, exec);
      auto const found = gradients_of(pass);
      CHECK(support::worst_error(found.dx, expected.dx) < 1e-11);
      for (std::size_t l = 0; l < 6; ++l) {
        CAPTURE(l);
        CHECK(support::worst_error(found.grads[l].k, expected.grads[l].k) < 1e-11);
        CHECK(support::worst_error(found.grads[l].v, expected.grads[l].v) < 1e-11);
        CHECK(support::worst_error(found.grads[l].q, expected.grads[l].q) < 1e-11);
        if (!plan.layers[l].k.stored) continue;
        CHECK(support::worst_error(found.dk[l], expected.dk[l]) < 1e-11);
        CHECK(support::worst_error(found.dv[l], expected.dv[l]) < 1e-11);
      }
    }
    r.stop_source_gradient(false);
    auto const flowing = support::tape_network(net, from, from).run();
    support::share_executor exec;
    support::routed_pass pass(net, r, plan, exec);
    CHECK(support::worst_error(gradients_of(pass).dx, flowing.dx) < 1e-11);
  }
}

// Forward keeps x at the segments' beginnings and the K and V that other segments read. Backward
// computes the rest again, segment by segment, into other memory.
TEST_CASE_TEMPLATE("a recomputed segment reads sources that lie outside it", Kernel,
                   reference_attention, blocked_attention) {
  support::network<double> const net(six_layers());
  auto const r = six_layer_router<Kernel>();
  support::share_executor exec{3, true};
  std::size_t const segments[] = {0, 2, 5, 6};
  int outside = 0;
  for (auto const& plan : drawn_plans()) {
    CAPTURE(plan);
    support::routed_pass kept(net, r, plan, exec);
    auto const expected = gradients_of(kept);

    support::routed_pass first(net, r, plan, exec);
    first.forward();
    support::routed_pass again(net, r, plan, exec);
    auto grads = net.no_gradients();
    again.dx = net.wish;
    for (std::size_t s = 3; s-- > 0;) {
      for (std::size_t l = segments[s]; l < segments[s + 1]; ++l) {
        auto const from = static_cast<std::size_t>(plan.layers[l].k.source.index);
        if (from >= segments[s]) continue;
        again.k[from] = first.k[from];
        again.v[from] = first.v[from];
        ++outside;
      }
      auto x = first.record[segments[s]].x;
      for (std::size_t l = segments[s]; l < segments[s + 1]; ++l) x = again.forward_layer(l, x);
      for (std::size_t l = segments[s + 1]; l-- > segments[s];) again.backward_layer(l, grads[l]);
      for (std::size_t l = segments[s]; l < segments[s + 1]; ++l) {  // the segment is forgotten
        again.record[l] = {};
        again.k[l].assign(again.k[l].size(), NAN);
        again.v[l].assign(again.v[l].size(), NAN);
      }
    }
    CHECK(same(everything<double>{grads, again.dx, again.dk, again.dv}, expected));
  }
  CHECK(outside > 4);
}

TEST_CASE("gradients that are not wanted are not needed for the others") {
  support::network<double> const net(six_layers());
  auto const r = six_layer_router();
  auto const plan = drawn_plans()[1];
  support::share_executor exec{2, false};
  support::routed_pass pass(net, r, plan, exec);
  pass.forward();
  auto const l = plan.layers[5].k.source;
  auto tensors = pass.tensors();
  auto const d_out = support::random_values<double>(12 * 4 * 3, 90);
  auto const dq_with = [&](bool dk, bool dv) {
    if (!dk) tensors[static_cast<std::size_t>(l.index)].dk = nullptr;
    if (!dv) tensors[static_cast<std::size_t>(l.index)].dv = nullptr;
    std::vector<double> dq(12 * 4 * 4, NAN);
    support::workspace_memory workspace;
    auto const bytes = *r.workspace_bytes({5}, pass.queries(5), net.pass, 2);
    CHECK(r.backward(exec, plan, {5}, pass.queries(5), tensors, net.pass, d_out.data(), dq.data(),
                     workspace.get(bytes))
              .ok());
    return dq;
  };
  auto const all = dq_with(true, true);
  auto const dv = pass.dv[static_cast<std::size_t>(l.index)];
  CHECK(support::same_bits(dq_with(false, true), all));
  CHECK(support::same_bits(pass.dv[static_cast<std::size_t>(l.index)], dv));
  CHECK(support::same_bits(dq_with(false, false), all));
}
