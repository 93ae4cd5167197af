// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 9 through a step: attention over parts of the keys, merged by log-sum-exp, is one call over
// all of them, wherever the cuts are and in whatever order the parts are joined.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include <strata/attention/online_softmax.hpp>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

using strata::layer_id;

namespace {

using f64_storage = strata::contiguous_storage<strata::f64_codec>;
using f32_storage = strata::paged_storage<strata::f32_codec>;
using f16_storage = strata::paged_storage<strata::f16_codec, strata::bf16_codec>;

using tested_toys = std::tuple<support::toy_stack<f64_storage>, support::toy_stack<f32_storage>,
                               support::toy_stack<f64_storage, strata::cpu::blocked_attention>,
                               support::toy_stack<f32_storage, strata::cpu::blocked_attention>,
                               support::toy_stack<f16_storage, strata::cpu::blocked_attention>>;

constexpr std::int32_t merged_q_heads = 4, merged_k_dim = 6, merged_v_dim = 4;

template <class T>
struct state {
  std::vector<T> out;                   // [rows, q_heads, v_dim]
  std::vector<strata::accum_t<T>> lse;  // [rows, q_heads]
};

/// A step of mixed depth whose layers hold random K and V.
template <class Toy>
struct fixture {
  using T = typename Toy::number;

  support::toy_shape shape;
  Toy toy{shape, {2, false}, {.k_tensors = 20, .v_tensors = 20}};
  std::vector<strata::batch_entry> batch;
  std::vector<float> sinks = support::random_values<float>(merged_q_heads, 50);
  std::vector<T> q = support::random_values<T>(9 * merged_q_heads * merged_k_dim, 51, 2);

  fixture() {
    auto const plans = support::plans_of_six(shape.classes());
    for (auto const i : {0, 4, 8})
      batch.push_back({*toy.stack.open(plans[static_cast<std::size_t>(i)].plan)});
    std::vector<support::toy_entry> first;
    for (auto const& e : batch)
      first.push_back({e.sequence, support::toy_tokens(3 + 2 * e.sequence.index, 52)});
    REQUIRE(toy.server.serve(first).state.ok());
    for (auto& e : batch) e = {e.sequence, 3, strata::logits::all};
  }

  template <class Step>
  state<T> attend(Step& step, layer_id l, std::int64_t begin, std::int64_t end, bool sink) {
    support::share_executor exec{2, true};
    support::workspace_memory workspace;
    state<T> s{std::vector<T>(9 * merged_q_heads * merged_v_dim, T(NAN)),
               std::vector<strata::accum_t<T>>(9 * merged_q_heads, T(NAN))};
    strata::layer_queries<T> queries{q.data(),       s.out.data(), s.lse.data(),
                                     merged_q_heads, begin,        end};
    queries.rule.softcap = 4;
    if (sink) queries.rule.sink_logits = sinks.data();
    REQUIRE(
        step.attend(exec, l, queries, workspace.get(*step.workspace_bytes(l, queries, 2))).ok());
    return s;
  }
};

template <class T>
void merge_into(state<T>& to, state<T> const& from) {
  for (std::size_t i = 0; i < to.lse.size(); ++i)
    strata::merge(&to.out[i * merged_v_dim], to.lse[i], &from.out[i * merged_v_dim], from.lse[i],
                  merged_v_dim);
}

template <class Step>
void store_random(Step& step) {
  for (layer_id l{0}; l.index < 6; ++l.index) {
    auto const heads = support::random_values<double>(9 * 2 * 8, 60 + l.index, 2);
    for (auto const& run : step.k_writers(l)) run.store_all(heads.data());
    for (auto const& run : step.v_writers(l)) run.store_all(heads.data());
  }
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("any split, merged, is one call", Toy, serving_merge) {
  fixture<Toy> f;
  using T = typename Toy::number;
  auto step = f.toy.stack.begin(f.batch);
  store_random(step);
  std::vector<std::vector<std::int64_t>> const cuts{
      {0, strata::all_keys},
      {0, 1, strata::all_keys},
      {0, 3, 3, 7, strata::all_keys},  // an empty part
      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
      {0, 10, 50, strata::all_keys},  // parts that no sequence reaches
  };
  for (layer_id l{0}; l.index < 6; ++l.index)
    for (bool const sink : {false, true}) {
      auto const whole = f.attend(step, l, 0, strata::all_keys, sink);
      for (auto const& cut : cuts)
        for (bool const backwards : {false, true}) {
          std::vector<std::size_t> order(cut.size() - 1);
          std::iota(order.begin(), order.end(), std::size_t{0});
          if (backwards) std::reverse(order.begin(), order.end());
          auto joint = f.attend(step, l, cut[order[0]], cut[order[0] + 1], sink);
          for (std::size_t i = 1; i < order.size(); ++i)
            merge_into(joint, f.attend(step, l, cut[order[i]], cut[order[i] + 1], sink));
          auto const bound = std::is_same_v<T, double> ? 1e-14 : 1e-5;
          CHECK(support::worst_error(joint.out, whole.out) < bound);
          CHECK(support::worst_error(joint.lse, whole.lse) < bound);
        }
    }
}
TEST_CASE_TEMPLATE_APPLY(serving_merge, tested_toys);

TEST_CASE_TEMPLATE(
    "a part without keys has no weight, and the sink belongs to the part that begins at 0", Kernel,
    strata::reference_attention, strata::cpu::blocked_attention) {
  fixture<support::toy_stack<f64_storage, Kernel>> f;
  auto step = f.toy.stack.begin(f.batch);
  store_random(step);
  auto const nothing = f.attend(step, {2}, 4, 4, true);
  CHECK(nothing.out == std::vector<double>(9 * merged_q_heads * merged_v_dim));
  for (auto const lse : nothing.lse) CHECK(lse == -INFINITY);

  auto const only_sink = f.attend(step, {2}, 0, 0, true);
  CHECK(only_sink.out == std::vector<double>(9 * merged_q_heads * merged_v_dim));
  for (std::size_t i = 0; i < only_sink.lse.size(); ++i)
    CHECK(only_sink.lse[i] == static_cast<double>(f.sinks[i % merged_q_heads]));

  auto joint = f.attend(step, {2}, 0, strata::all_keys, true);
  auto const alone = joint;
  merge_into(joint, nothing);
  CHECK(support::same_bits(joint.out, alone.out));
  CHECK(support::same_bits(joint.lse, alone.lse));
}

TEST_CASE("ranges that end before they begin are refused") {
  fixture<support::toy_stack<f64_storage>> f;
  auto step = f.toy.stack.begin(f.batch);
  store_random(step);
  support::share_executor exec;
  std::vector<double> out(9 * merged_q_heads * merged_v_dim);
  std::byte workspace[4096];
  for (auto const& [begin, end] : {std::pair{4, 3}, {-1, 3}, {-2, -1}}) {
    strata::layer_queries<double> const queries{f.q.data(),     out.data(), nullptr,
                                                merged_q_heads, begin,      end};
    CHECK(step.attend(exec, {5}, queries, workspace) ==
          strata::status{strata::errc::bad_key_range, {5}, begin, end});
  }
  CHECK(out == std::vector<double>(9 * merged_q_heads * merged_v_dim));
}
