// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Training with the attention kernel of devices, through a router, against the reference in double.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/router.hpp>
#include <strata/routing/fixed_route.hpp>

#include "attention_cases.hpp"
#include "exact_numbers.hpp"
#include "half_call.hpp"
#include "print.hpp"

namespace support {

/// Training tensors of a layer, and what a pass makes of them.
template <class T>
struct layer_memory {
  std::vector<T> q, k, v, out, d_out, d_q;
  std::vector<float> lse, dk, dv;
};

/// Three layers, of which the second reads the first: its gradients are the sum of both readers'.
template <class Kernel>
void check_training(Kernel const& kernel) {
  using strata::bfloat16;
  using strata::layer_id;

  constexpr std::int32_t layers = 3, heads = 4, kv_heads = 2, dim = 64;
  constexpr strata::pass_shape shape{2, 40};
  constexpr auto rows = std::int64_t{shape.num_seqs} * shape.length;
  auto const model = strata::kv_classes::uniform(
      layers, {.kv = {.kv_heads = kv_heads, .k_dim = dim, .v_dim = dim}});
  strata::fixed_route const sampler(strata::grouped_map(layers, 2));
  strata::router<decltype(sampler), Kernel> device(sampler, model, kernel);
  strata::router<decltype(sampler), strata::reference_attention> exact(sampler, model);
  auto const plan = device.draw({}).value();

  std::vector<layer_memory<bfloat16>> mine(layers);
  std::vector<layer_memory<double>> theirs(layers);
  std::vector<std::vector<double>> dk(layers), dv(layers), lse(layers);
  std::vector<strata::layer_tensors<bfloat16>> tensors;
  std::vector<strata::layer_tensors<double>> exact_tensors;
  for (std::size_t l = 0; l < layers; ++l) {
    auto const draw = [&](std::int32_t width, std::uint64_t what) {
      return narrowed<bfloat16>(random_values<float>(rows * width, 10 * l + what));
    };
    auto& m = mine[l];
    m.q = draw(heads * dim, 1), m.k = draw(kv_heads * dim, 2), m.v = draw(kv_heads * dim, 3);
    m.d_out = draw(heads * dim, 4);
    m.out.resize(m.q.size()), m.d_q.resize(m.q.size());
    m.lse.assign(as_size(rows * heads), NAN);
    m.dk.assign(m.k.size(), NAN), m.dv.assign(m.v.size(), NAN);  // the first reader starts them
    auto& t = theirs[l];
    auto const wide = [](std::vector<bfloat16> const& x) {
      auto const y = widened(x);
      return std::vector<double>(y.begin(), y.end());
    };
    t.q = wide(m.q), t.k = wide(m.k), t.v = wide(m.v), t.d_out = wide(m.d_out);
    t.out.resize(t.q.size()), t.d_q.resize(t.q.size());
    lse[l].assign(m.lse.size(), NAN), dk[l].assign(m.k.size(), NAN), dv[l].assign(m.v.size(), NAN);
    tensors.push_back({m.k.data(), m.v.data(), m.dk.data(), m.dv.data()});
    exact_tensors.push_back({t.k.data(), t.v.data(), dk[l].data(), dv[l].data()});
  }
  strata::serial_executor here;
  auto const run = [&](auto const& router, auto& memory, auto const& all, layer_id l, auto* lse_of,
                       bool back) {
    auto& m = memory[as_size(l.index)];
    using element = typename std::remove_reference_t<decltype(m.q)>::value_type;
    strata::layer_queries<element> const queries{
        .q = m.q.data(), .out = m.out.data(), .lse = lse_of, .q_heads = heads};
    std::vector<std::byte> workspace(as_size(*router.workspace_bytes(l, queries, shape, 1)));
    return back ? router.backward(here, plan, l, queries, all, shape, std::as_const(m).d_out.data(),
                                  m.d_q.data(), workspace)
                : router.forward(here, plan, l, queries, all, shape, workspace);
  };
  for (layer_id l{0}; layers > l.index; ++l.index) {
    REQUIRE(run(device, mine, tensors, l, mine[as_size(l.index)].lse.data(), false).ok());
    REQUIRE(run(exact, theirs, exact_tensors, l, lse[as_size(l.index)].data(), false).ok());
  }
  for (layer_id l{layers - 1}; l.valid(); --l.index) {
    REQUIRE(run(device, mine, tensors, l, mine[as_size(l.index)].lse.data(), true).ok());
    REQUIRE(run(exact, theirs, exact_tensors, l, lse[as_size(l.index)].data(), true).ok());
  }
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto const i = as_size(l.index);
    CAPTURE(i);
    CHECK(tensor_distance(widened(mine[i].out), theirs[i].out).error < 0.02);
    CHECK(tensor_distance(widened(mine[i].d_q), theirs[i].d_q).error < 0.05);
    if (!plan[l].k.stored) continue;
    CHECK(tensor_distance(mine[i].dk, dk[i]).error < 0.1);
    CHECK(tensor_distance(mine[i].dv, dv[i]).error < 0.1);
    CHECK(tensor_distance(mine[i].dk, dk[i]).magnitude > 0.5);
  }
}

}  // namespace support
