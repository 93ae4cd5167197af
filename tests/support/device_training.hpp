// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Training with the attention kernel of devices, through a router, against the reference in double.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
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

/// A pass through three layers, of which the second reads the first, and what it leaves. The
/// numbers are those that bfloat16 holds, whatever T.
template <class T>
class training_pass {
  using A = strata::accum_t<T>;

 public:
  static constexpr std::int32_t layers = 3, heads = 4, kv_heads = 2, dim = 64;
  static constexpr strata::pass_shape shape{2, 40};

  struct layer {
    std::vector<T> q, k, v, out, d_out, d_q;  // [rows, heads or kv_heads, dim]
    std::vector<A> lse, dk, dv;
  };

  training_pass() {
    for (std::uint64_t l = 0; l < layers; ++l) {
      auto& m = memory_[l];
      m.q = draw(heads, 10 * l), m.k = draw(kv_heads, 10 * l + 1), m.v = draw(kv_heads, 10 * l + 2);
      m.d_out = draw(heads, 10 * l + 3);
      m.out.resize(m.q.size()), m.d_q.resize(m.q.size());
      m.lse.assign(as_size(rows * heads), NAN);
      m.dk.assign(m.k.size(), NAN), m.dv.assign(m.v.size(), NAN);  // the first reader starts them
      tensors_.push_back({m.k.data(), m.v.data(), m.dk.data(), m.dv.data()});
    }
  }
  training_pass(training_pass const&) = delete;
  training_pass& operator=(training_pass const&) = delete;

  layer const& operator[](strata::layer_id l) const { return memory_[as_size(l.index)]; }

  template <class Router>
  void run(Router const& router, strata::route_plan const& plan) {
    for (strata::layer_id l{0}; layers > l.index; ++l.index) {
      auto const q = queries(l);
      REQUIRE(router.forward(here_, plan, l, q, tensors_, shape, workspace(router, l, q)).ok());
    }
    for (strata::layer_id l{layers - 1}; l.valid(); --l.index) {
      auto const q = queries(l);
      auto& m = memory_[as_size(l.index)];
      REQUIRE(router
                  .backward(here_, plan, l, q, tensors_, shape, std::as_const(m).d_out.data(),
                            m.d_q.data(), workspace(router, l, q))
                  .ok());
    }
  }

 private:
  static constexpr auto rows = std::int64_t{shape.num_seqs} * shape.length;

  static std::vector<T> draw(std::int32_t width, std::uint64_t seed) {
    auto const x = random_values<float>(rows * width * dim, seed + 1);
    std::vector<T> y;
    for (auto const e : widened(narrowed<strata::bfloat16>(x)))
      y.push_back(strata::detail::narrow<T>(e));
    return y;
  }
  strata::layer_queries<T> queries(strata::layer_id l) {
    auto& m = memory_[as_size(l.index)];
    return {.q = m.q.data(), .out = m.out.data(), .lse = m.lse.data(), .q_heads = heads};
  }
  template <class Router>
  std::span<std::byte> workspace(Router const& router, strata::layer_id l,
                                 strata::layer_queries<T> const& q) {
    workspace_.resize(as_size(router.workspace_bytes(l, q, shape, 1).value()));
    return workspace_;
  }

  layer memory_[layers];
  std::vector<strata::layer_tensors<T>> tensors_;
  std::vector<std::byte> workspace_;
  strata::serial_executor here_;
};

/// Gradients of the first layer are the sum of its two readers'.
template <class Kernel>
void check_training(Kernel const& kernel) {
  using pass = training_pass<double>;
  auto const model = strata::kv_classes::uniform(
      pass::layers, {.kv = {.kv_heads = pass::kv_heads, .k_dim = pass::dim, .v_dim = pass::dim}});
  strata::fixed_route const sampler(strata::grouped_map(pass::layers, 2));
  strata::router<decltype(sampler), Kernel> device(sampler, model, kernel);
  strata::router<decltype(sampler), strata::reference_attention> reference(sampler, model);
  auto const plan = device.draw({}).value();
  training_pass<strata::bfloat16> got;
  training_pass<double> exact;
  got.run(device, plan);
  exact.run(reference, plan);
  for (strata::layer_id l{0}; pass::layers > l.index; ++l.index) {
    CAPTURE(l.index);
    CHECK(tensor_distance(widened(got[l].out), exact[l].out).error < 0.02);
    CHECK(tensor_distance(widened(got[l].d_q), exact[l].d_q).error < 0.05);
    if (!plan[l].k.stored) continue;
    tensor_distance const dk(got[l].dk, exact[l].dk), dv(got[l].dv, exact[l].dv);
    CHECK(dk.error < 0.1);
    CHECK(dv.error < 0.1);
    CHECK(dk.magnitude > 0.5);
  }
}

}  // namespace support
