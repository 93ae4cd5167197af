// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The router's calls one by one: what they draw, what they refuse, what they leave alone. Whether
// its gradients are right is for tests/laws/gradient_*.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/router.hpp>
#include <strata/routing/fixed_route.hpp>
#include <strata/routing/random_previous.hpp>

#include "support/exact_numbers.hpp"
#include "support/print.hpp"
#include "support/share_executor.hpp"

using strata::errc;
using strata::layer_id;
using strata::status;

namespace {

constexpr std::int32_t routed_q_heads = 4, routed_kv_heads = 2, routed_k_dim = 3, routed_v_dim = 5;
constexpr strata::pass_shape routed_pass{2, 4};
constexpr std::size_t routed_rows = 8;

/// Three layers with K/V, and one without in between.
strata::kv_classes four_layers() {
  strata::layer_kind attention, linear;
  attention.kv = {.kv_heads = routed_kv_heads, .k_dim = routed_k_dim, .v_dim = routed_v_dim};
  linear.has_kv = false;
  strata::layer_kind const layers[] = {attention, attention, linear, attention};
  return *strata::kv_classes::make(layers);
}

using router = strata::router<strata::random_previous<>, strata::reference_attention>;

/// Random, rounded where T has 16 bits.
template <class T>
std::vector<T> values_of(std::size_t count, std::uint64_t seed) {
  if constexpr (std::is_floating_point_v<T>) {
    return support::random_values<T>(static_cast<std::int64_t>(count), seed);
  } else {
    std::vector<T> out;
    for (auto const x : values_of<float>(count, seed)) out.push_back(strata::detail::narrow<T>(x));
    return out;
  }
}

template <class T>
struct tensors_of_four {
  std::vector<T> k[4], v[4];
  std::vector<strata::accum_t<T>> dk[4], dv[4];
  std::vector<strata::layer_tensors<T>> all;

  tensors_of_four() {
    for (std::size_t l = 0; l < 4; ++l) {
      k[l] = values_of<T>(routed_rows * routed_kv_heads * routed_k_dim, 10 + l);
      v[l] = values_of<T>(routed_rows * routed_kv_heads * routed_v_dim, 20 + l);
      dk[l].assign(routed_rows * routed_kv_heads * routed_k_dim, NAN);
      dv[l].assign(routed_rows * routed_kv_heads * routed_v_dim, NAN);
      all.push_back({k[l].data(), v[l].data(), dk[l].data(), dv[l].data()});
    }
  }
};

struct fixture {
  router r{strata::random_previous(0.5), four_layers()};
  strata::route_plan plan = *make_plan(strata::identity_map(4), four_layers());
  tensors_of_four<double> tensors;
  std::vector<double> q =
      support::random_values<double>(routed_rows * routed_q_heads * routed_k_dim, 30);
  std::vector<double> out = std::vector<double>(routed_rows * routed_q_heads * routed_v_dim, NAN);
  std::vector<double> lse = std::vector<double>(routed_rows * routed_q_heads, NAN);
  std::vector<double> d_out =
      support::random_values<double>(routed_rows * routed_q_heads * routed_v_dim, 31);
  std::vector<double> dq = std::vector<double>(routed_rows * routed_q_heads * routed_k_dim, NAN);
  support::share_executor exec{2, false};
  support::workspace_memory memory;

  strata::layer_queries<double> queries() {
    return {q.data(), out.data(), lse.data(), routed_q_heads};
  }
  status forward(layer_id l) {
    return r.forward(exec, plan, l, queries(), tensors.all, routed_pass, memory.get(4096));
  }
  status backward(layer_id l) {
    return r.backward(exec, plan, l, queries(), tensors.all, routed_pass, d_out.data(), dq.data(),
                      memory.get(4096));
  }
  bool untouched() const {
    for (auto const* x : {&out, &lse, &dq})
      for (auto const y : *x)
        if (!std::isnan(y)) return false;
    for (std::size_t l = 0; l < 4; ++l)
      for (auto const* x : {&tensors.dk[l], &tensors.dv[l]})
        for (auto const y : *x)
          if (!std::isnan(y)) return false;
    return true;
  }
};

}  // namespace

TEST_CASE("a draw is make_plan's, and pure") {
  router const r(strata::random_previous(0.5), four_layers());
  for (std::uint64_t step = 0; step < 20; ++step) {
    strata::draw_key const key{.seed = 3, .step = step};
    auto const plan = r.draw(key);
    REQUIRE(plan.ok());
    CHECK(*plan == *make_plan(strata::random_previous(0.5), four_layers(), key));
    CHECK(*plan == *r.draw(key));
  }
  router const bad(strata::random_previous(2), four_layers());
  CHECK(bad.draw({}).state().code == errc::not_a_probability);
}

// As activation checkpointing does: the pass is computed again, after others, under its own step.
TEST_CASE("a pass recomputed under the same step has the same routes and bits") {
  fixture f;
  auto const pass_of = [&](std::uint64_t step) {
    f.plan = *f.r.draw({.seed = 3, .step = step});
    std::vector<double> outs;
    for (layer_id const l : {layer_id{0}, layer_id{1}, layer_id{3}}) {
      REQUIRE(f.forward(l).ok());
      outs.insert(outs.end(), f.out.begin(), f.out.end());
    }
    return std::pair{f.plan, outs};
  };
  std::int32_t differ = 0;
  for (std::uint64_t step = 0; step < 20; ++step) {
    auto const first = pass_of(step), other = pass_of(step + 1), again = pass_of(step);
    CHECK(again.first == first.first);
    CHECK(again.first.k_slots == first.first.k_slots);
    CHECK(again.second == first.second);
    differ += other.first != first.first;
  }
  CHECK(differ > 5);
}

TEST_CASE("ranks and sequences share a route, unless the scope says otherwise") {
  using strata::draw_scope;
  router r(strata::random_previous(0.5), four_layers());
  // Whether some of 20 keys that differ in one field only draw another plan.
  auto const varies = [&](auto change) {
    auto const first = *r.draw({.seed = 3, .step = 1, .micro_batch = 1});
    for (std::uint32_t i = 0; i < 20; ++i) {
      strata::draw_key key{.seed = 3, .step = 1, .micro_batch = 1};
      change(key, i);
      if (*r.draw(key) != first) return true;
    }
    return false;
  };
  auto const check = [&](bool micro_batch, bool sequence, bool replica) {
    CHECK(varies([](auto& key, auto i) { key.step = i; }));
    CHECK(varies([](auto& key, auto i) { key.micro_batch = i; }) == micro_batch);
    CHECK(varies([](auto& key, auto i) { key.sequence = i; }) == sequence);
    CHECK(varies([](auto& key, auto i) { key.replica = i; }) == replica);
  };
  check(true, false, false);
  r.draw_per(draw_scope::sequence);
  check(true, true, false);
  r.draw_per(draw_scope::replica);
  check(true, false, true);
  r.draw_per(draw_scope::step);
  check(false, false, false);
}

TEST_CASE("the sampler may change between passes") {
  fixture f;
  f.r.sampler().self_probability = 1;
  auto const plan = *f.r.draw({.seed = 8});
  for (std::int32_t l : {0, 1, 3}) CHECK(plan.layers[l].k.source == layer_id{l});
}

TEST_CASE("calls that cannot mean anything are refused, and nothing is written") {
  fixture f;
  for (layer_id const bad : {layer_id{-1}, layer_id{4}}) {
    status const expected{errc::layer_out_of_range, bad, bad.index, 4};
    CHECK(f.forward(bad) == expected);
    CHECK(f.backward(bad) == expected);
    CHECK(f.r.workspace_bytes(bad, f.queries(), routed_pass, 1).state() == expected);
  }
  status const linear{errc::source_without_kv, {2}, 2, 0};
  CHECK(f.forward({2}) == linear);
  CHECK(f.backward({2}) == linear);
  CHECK(f.r.workspace_bytes({2}, f.queries(), routed_pass, 1).state() == linear);

  f.tensors.all.pop_back();
  CHECK(f.forward({3}) == status{errc::too_few_tensors, {3}, 3, 4});
  CHECK(f.backward({3}) == status{errc::too_few_tensors, {3}, 3, 4});

  auto const plan = f.plan;
  f.plan = *make_plan(strata::identity_map(3));
  CHECK(f.forward({0}) == status{errc::plan_mismatch, {0}, 3, 4});
  CHECK(f.backward({0}) == status{errc::plan_mismatch, {0}, 3, 4});
  CHECK(std::string(describe(f.forward({0})).c_str()) ==
        "the plan has 3 layers, but the model has 4");
  f.plan = plan;

  f.plan.layers[1].v.source = {};
  CHECK(f.forward({1}) == status{errc::bad_plan, {1}, -1, 0});
  f.plan.layers[1].v.source = {3};  // a later layer, which has no K/V yet
  CHECK(f.forward({1}) == status{errc::source_above_reader, {1}, 3, 1});
  CHECK(f.backward({1}) == status{errc::source_above_reader, {1}, 3, 1});
  f.plan = plan;
  f.plan.layers[3].k.source = {2};  // keeps nothing
  CHECK(f.forward({3}) == status{errc::bad_plan, {3}, 2, 0});
  CHECK(f.backward({3}) == status{errc::bad_plan, {3}, 2, 0});
  f.plan.layers[3].k.source = {0};
  f.plan.layers[0].k.stored = false;
  CHECK(f.forward({3}) == status{errc::bad_plan, {3}, 0, 0});
  f.plan = plan;

  f.tensors.all[1].v = nullptr;
  CHECK(f.forward({1}) == null_pointer(strata::tensor::v, {1}));
  CHECK(f.backward({1}) == null_pointer(strata::tensor::v, {1}));
  CHECK(f.untouched());
}

TEST_CASE("a backward that is refused starts no sum, not even a stopped one") {
  fixture f;
  f.plan = *make_plan(strata::grouped_map(4, 4), four_layers());
  f.r.stop_source_gradient(true);
  auto queries = f.queries();
  queries.lse = nullptr;
  CHECK(f.r.backward(f.exec, f.plan, {3}, queries, f.tensors.all, routed_pass, f.d_out.data(),
                     f.dq.data(), f.memory.get(4096))
            .code == errc::null_pointer);
  CHECK(f.r.backward(f.exec, f.plan, {3}, f.queries(), f.tensors.all, routed_pass, f.d_out.data(),
                     f.dq.data())
            .code == errc::workspace_too_small);
  CHECK(f.untouched());
}

TEST_CASE("a layer reads its source's tensors, and only those") {
  fixture f;
  f.plan = *make_plan(strata::grouped_map(4, 4), four_layers());
  REQUIRE(f.forward({0}).ok());
  auto const from_own = f.out;
  for (std::size_t l : {1, 3}) f.tensors.all[l] = {};  // nobody reads them: they need not exist
  REQUIRE(f.forward({3}).ok());
  CHECK(support::same_bits(f.out, from_own));
  REQUIRE(f.backward({3}).ok());
  for (auto const x : f.tensors.dk[0]) CHECK(std::isfinite(x));
}

TEST_CASE("a workspace of the bytes asked for is enough, one byte less is not") {
  fixture f;
  auto const bytes = *f.r.workspace_bytes({0}, f.queries(), routed_pass, f.exec.num_shares());
  auto const run = [&](std::int64_t given) {
    return f.r.forward(f.exec, f.plan, {0}, f.queries(), f.tensors.all, routed_pass,
                       f.memory.get(given));
  };
  CHECK(run(bytes - 1) == status{errc::workspace_too_small, {0}, bytes - 1, bytes});
  CHECK(run(bytes).ok());
}

TEST_CASE("a layer's own window narrows the rule's") {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = routed_kv_heads, .k_dim = routed_k_dim, .v_dim = routed_v_dim};
  kind.window = 2;
  fixture f;
  router narrow(strata::random_previous(1), strata::kv_classes::uniform(4, kind));
  auto const plan = *make_plan(strata::identity_map(4));
  auto wide_rule = f.queries(), narrow_rule = f.queries();
  narrow_rule.rule.window = 2;
  auto const run = [&](router const& r, strata::layer_queries<double> const& queries) {
    CHECK(
        r.forward(f.exec, plan, {0}, queries, f.tensors.all, routed_pass, f.memory.get(4096)).ok());
    return f.out;
  };
  auto const expected = run(f.r, narrow_rule);
  CHECK(support::same_bits(run(narrow, wide_rule), expected));
  CHECK_FALSE(support::same_bits(run(f.r, wide_rule), expected));
  narrow_rule.rule.window = 1;  // the rule may narrow further
  auto const own_only = run(f.r, narrow_rule);
  CHECK(support::same_bits(run(narrow, narrow_rule), own_only));
}

TEST_CASE("an empty pass is no error") {
  fixture f;
  for (auto const shape : {strata::pass_shape{0, 4}, {2, 0}, {0, 0}}) {
    CHECK(f.r.forward(f.exec, f.plan, {0}, f.queries(), f.tensors.all, shape, f.memory.get(4096))
              .ok());
    CHECK(f.r.backward(f.exec, f.plan, {0}, f.queries(), f.tensors.all, shape, f.d_out.data(),
                       f.dq.data(), f.memory.get(4096))
              .ok());
  }
  CHECK(f.untouched());
}

TEST_CASE("a pass of negative size is refused") {
  fixture f;
  for (auto const shape : {strata::pass_shape{-1, 4}, {2, -4}, {-1, -4}}) {
    CHECK_FALSE(
        f.r.forward(f.exec, f.plan, {0}, f.queries(), f.tensors.all, shape, f.memory.get(4096))
            .ok());
    CHECK_FALSE(f.r.backward(f.exec, f.plan, {0}, f.queries(), f.tensors.all, shape, f.d_out.data(),
                             f.dq.data(), f.memory.get(4096))
                    .ok());
  }
  CHECK(f.untouched());
}

TEST_CASE("rows of 16 bits are routed as floats are, and their gradients are float") {
  using strata::bfloat16;
  strata::layer_kind kind;
  kind.kv = {.kv_heads = routed_kv_heads, .k_dim = routed_k_dim, .v_dim = routed_v_dim};
  kind.window = 3;
  router const r(strata::random_previous(0.5), strata::kv_classes::uniform(4, kind));
  auto const plan = *make_plan(strata::grouped_map(4, 2));
  tensors_of_four<bfloat16> half;
  static_assert(std::is_same_v<decltype(half.all[0].dk), float*>);
  tensors_of_four<float> whole;  // the same numbers
  auto const widen = [](std::vector<bfloat16> const& from, std::vector<float>& to) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = strata::to_float(from[i]);
  };
  for (std::size_t l = 0; l < 4; ++l) {
    widen(half.k[l], whole.k[l]);
    widen(half.v[l], whole.v[l]);
  }
  auto const q = values_of<bfloat16>(routed_rows * routed_q_heads * routed_k_dim, 30);
  std::vector<float> wide_q(q.size());
  widen(q, wide_q);
  std::vector<bfloat16> out(routed_rows * routed_q_heads * routed_v_dim);
  std::vector<float> wide_out(out.size());
  support::share_executor exec{2, false};
  support::workspace_memory memory;
  strata::layer_queries<bfloat16> const asked{q.data(), out.data(), nullptr, routed_q_heads};
  strata::layer_queries<float> const wide{wide_q.data(), wide_out.data(), nullptr, routed_q_heads};
  for (std::int32_t l = 0; l < 4; ++l) {
    REQUIRE(r.forward(exec, plan, {l}, asked, half.all, routed_pass, memory.get(4096)).ok());
    REQUIRE(r.forward(exec, plan, {l}, wide, whole.all, routed_pass, memory.get(4096)).ok());
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == strata::to_bfloat16(wide_out[i]));
  }
}

TEST_CASE("a call says what a layer reads, where its gradients go and which sums start") {
  fixture f;
  f.plan = *make_plan(strata::grouped_map(4, 4), four_layers());
  auto const call = [&](std::int32_t l) {
    return *f.r.call(f.plan, {l}, f.queries(), f.tensors.all, routed_pass);
  };
  auto const data = [](auto const& x) { return reinterpret_cast<std::byte const*>(x.data()); };
  for (std::int32_t l : {0, 1, 3}) {
    auto const c = call(l);
    CHECK(c.view.k.data == data(f.tensors.k[0]));
    CHECK(c.view.v.data == data(f.tensors.v[0]));
    CHECK(c.q.num_rows() == 8);
    CHECK(c.grad.dk == f.tensors.dk[0].data());
    CHECK(c.grad.add_v == (l != 3));
    CHECK(c.zero_dk.empty());
  }
  f.r.stop_source_gradient(true);
  CHECK(call(0).grad.dk == f.tensors.dk[0].data());
  CHECK(call(1).grad.dk == nullptr);
  CHECK(call(1).zero_dk.empty());
  CHECK(call(3).zero_dk.data() == f.tensors.dk[0].data());
  CHECK(call(3).zero_dk.size() == f.tensors.dk[0].size());
  CHECK(call(3).zero_dv.size() == f.tensors.dv[0].size());
  CHECK(f.r.call(f.plan, {2}, f.queries(), f.tensors.all, routed_pass).state().code ==
        errc::source_without_kv);
}
