// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "support/models.hpp"
#include "support/print.hpp"
#include "support/samplers.hpp"

TEST_CASE_TEMPLATE("draws of one sampler on many threads are those of one thread", Sampler,
                   SUPPORT_ALL_SAMPLERS) {
  constexpr std::uint32_t threads = 4, draws = 64;
  auto const m = support::crazy_quilt();
  auto const sampler = support::sampler_for<Sampler>::make(m);
  auto const classes = m.classes();
  auto const draw = [&](std::uint32_t i) {
    return *strata::make_plan(sampler, classes, {40, i, i % 3, i % 5, i % 2});
  };
  std::vector<strata::route_plan> expected, drawn(draws);
  for (std::uint32_t i = 0; i < draws; ++i) expected.push_back(draw(i));

  std::vector<std::thread> pool;
  for (std::uint32_t t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      for (std::uint32_t i = t; i < draws; i += threads) drawn[i] = draw(i);
    });
  for (auto& thread : pool) thread.join();
  CHECK(drawn == expected);
}
