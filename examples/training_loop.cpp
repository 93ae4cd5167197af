// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Stochastic KV routing in somebody else's training loop (tiny_decoder.hpp): one plan per pass,
// four calls in the layer loop. Ends with a check of the gradient against a central difference.
#include "tiny_decoder.hpp"

#include <cstdio>

int main() {
  decoder_shape const shape;
  strata::router router(strata::random_previous(0.5), shape.classes(),
                        strata::reference_attention{});
  tiny_decoder<double, decltype(router)> model(shape, router, 1);

  std::size_t const window = 4 * 33;  // bytes of one pass
  double first = 0, last = 0;
  for (std::uint64_t step = 0; step < 200; ++step) {
    auto const plan = model.router.draw({.seed = 1, .step = step});
    auto const text = psalm.substr(step * 37 % (psalm.size() - window), window);
    last = model.pass(*plan, text);
    model.descend(0.5);
    if (step == 0) first = last;
    if (step % 50 == 0)
      std::printf("step %3d  loss %.3f nats per byte\n", static_cast<int>(step), last);
  }
  std::printf("step 200  loss %.3f, from %.3f\n", last, first);

  // One weight of layer 0's K, which several layers may read, up and down a little.
  auto const plan = *model.router.draw({.seed = 2});
  auto const text = psalm.substr(0, window);
  model.pass(plan, text);
  double const derived = model.layer[0].dwk[5], h = 1e-5;
  auto& weight = model.layer[0].wk[5];
  weight += h;
  double const up = model.loss(plan, text);
  weight -= 2 * h;
  double const down = model.loss(plan, text);
  double const measured = (up - down) / (2 * h);
  std::printf("gradient of one weight: derived %.9f, measured %.9f\n", derived, measured);
  return last < first - 1 && std::fabs(derived - measured) < 1e-7 ? 0 : 1;
}
