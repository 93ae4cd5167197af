// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The same bits for any number of threads.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "tiny_run.hpp"

TEST_CASE("the number of threads does not change a bit of a trained model") {
  auto o = tiny::run_options(true);
  o.batch = 20;  // 620 rows: five slabs
  o.draws_per_step = 2;
  o.steps = 4;
  std::vector<std::vector<std::uint32_t>> weights;
  for (std::int32_t threads : {1, 2, 3}) {
    tiny::tiny_run run(o, threads);
    while (!run.trainer().finished()) run.trainer().step();
    weights.push_back(tiny::bits(run.trainer().model().weights()));
  }
  CHECK(weights[1] == weights[0]);
  CHECK(weights[2] == weights[0]);
}

// Wide enough for BLAS to choose its blocked paths.
TEST_CASE("the number of threads does not change a bit of the demo's model") {
  lm::training_options o;
  o.model.layers = 2;
  o.batch = 5;
  o.steps = 2;
  std::vector<std::vector<std::uint32_t>> weights;
  for (std::int32_t threads : {1, 2, 3}) {
    tiny::tiny_run run(o, threads);
    while (!run.trainer().finished()) run.trainer().step();
    weights.push_back(tiny::bits(run.trainer().model().weights()));
  }
  CHECK(weights[1] == weights[0]);
  CHECK(weights[2] == weights[0]);
}
