// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Training passes on real threads: the serial bits, and nothing for a thread sanitizer to find.
#include <doctest/doctest.h>

#include <cstdint>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/reference.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/thread_pool.hpp>

#include "support/print.hpp"
#include "support/routed_network.hpp"

TEST_CASE_TEMPLATE("gradients on a pool of threads are the serial bits", Kernel,
                   strata::reference_attention, strata::cpu::blocked_attention) {
  support::toy_shape shape;
  shape.layers.resize(4);
  support::network<double> const net(shape, {3, 6});
  strata::router<strata::random_previous<>, Kernel> const router(strata::random_previous(0.5),
                                                                 shape.classes());
  strata::serial_executor serial;
  for (std::uint64_t step = 0; step < 3; ++step) {
    auto const plan = *router.draw({.seed = 1, .step = step});
    support::routed_pass expected(net, router, plan, serial);
    expected.forward();
    auto const grads = expected.backward();
    for (std::int32_t const threads : {1, 2, 5}) {
      strata::thread_pool pool(threads);
      support::routed_pass pass(net, router, plan, pool);
      pass.forward();
      auto const found = pass.backward();
      CHECK(support::same_bits(pass.dx, expected.dx));
      for (std::size_t l = 0; l < 4; ++l) {
        CHECK(support::same_bits(found[l].k, grads[l].k));
        CHECK(support::same_bits(pass.dk[l], expected.dk[l]));
        CHECK(support::same_bits(pass.dv[l], expected.dv[l]));
      }
    }
  }
}
