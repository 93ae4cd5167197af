// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What --schedule and --depth-schedule mean: the probability that a layer reads itself, at which
// step and at which layer.
#include <doctest/doctest.h>

#include <cstdint>

#include <strata/plan.hpp>

#include "training_options.hpp"

namespace {

lm::training_options of_steps(std::int64_t steps) {
  lm::training_options o;
  o.steps = steps;
  o.model.layers = 5;
  return o;
}

double at(lm::training_options const& o, std::uint64_t step, std::int32_t layer = 2) {
  strata::draw_key key;
  key.step = step;
  return lm::make_schedule(o)(strata::layer_id{layer}, key);
}

}  // namespace

TEST_CASE(
    "schedule: with a third number, the first until that fraction of the steps, then the second") {
  auto o = of_steps(1000);
  o.schedule = "1:0.5:0.25";
  CHECK(at(o, 0) == 1);
  CHECK(at(o, 249) == 1);
  CHECK(at(o, 250) == 0.5);
  CHECK(at(o, 999) == 0.5);
  for (std::int32_t layer = 0; layer < 5; ++layer) CHECK(at(o, 300, layer) == 0.5);
  o.schedule = "0.9:0.2:0";
  CHECK(at(o, 0) == 0.2);
  o.schedule = "0.9:0.2:1";
  CHECK(at(o, 999) == 0.9);  // the last step still comes before the end
}

TEST_CASE("schedule: with two numbers, a straight line from the first step to the last") {
  auto o = of_steps(101);
  o.schedule = "0:1";
  CHECK(at(o, 0) == 0);
  CHECK(at(o, 25) == doctest::Approx(0.25));
  CHECK(at(o, 50) == doctest::Approx(0.5));
  CHECK(at(o, 100) == 1);
  o.schedule = "0.8:0.4";
  CHECK(at(o, 50) == doctest::Approx(0.6));
  auto one = of_steps(1);
  one.schedule = "0.3:0.7";
  CHECK(at(one, 0) == 0.7);
}

TEST_CASE("schedule: over depth, a straight line from the first layer to the last, at every step") {
  auto o = of_steps(100);
  o.depth_schedule = "1:0.2";
  for (std::uint64_t const step : {0, 50, 99}) {
    CHECK(at(o, step, 0) == 1);
    CHECK(at(o, step, 1) == doctest::Approx(0.8));
    CHECK(at(o, step, 3) == doctest::Approx(0.4));
    CHECK(at(o, step, 4) == doctest::Approx(0.2));
  }
}

TEST_CASE("schedule: the sampler draws by it, whatever P its routing names") {
  auto o = of_steps(1000);
  o.routing = "rcla:0.5";
  o.schedule = "1:0:0.5";
  auto const sampler = lm::make_sampler(o);
  auto const classes = o.model.classes();
  for (std::uint64_t step = 0; step < 1000; step += 50) {
    auto const plan = strata::make_plan(sampler, classes, {7, step}).value();
    for (std::int32_t l = 1; l < 5; ++l)
      CHECK((plan.layers[l].k.source.index == l) == (step < 500));
  }
}
