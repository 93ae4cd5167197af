// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/plan.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/routing/coin_to_map.hpp>
#include <strata/routing/probability.hpp>
#include <strata/routing/random_leader_set.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/routing/random_window.hpp>

#include "support/print.hpp"

using doctest::Approx;
using strata::errc;
using strata::probability_schedule;
using strata::status;

static_assert(strata::probability<probability_schedule>);
static_assert(!strata::probability<double>);

namespace {

constexpr auto not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr auto infinity = std::numeric_limits<double>::infinity();
constexpr auto last_step = std::numeric_limits<std::uint64_t>::max();

double at_step(probability_schedule const& schedule, std::uint64_t step) {
  auto const value = schedule({3}, {0, step, 0, 0, 0});
  CHECK(schedule({200}, {9, step, 8, 7, 6}) == value);  // nothing but the step matters
  return value;
}

double at_layer(probability_schedule const& schedule, std::int32_t layer) {
  auto const value = schedule({layer}, {});
  CHECK(schedule({layer}, {9, 1000, 8, 7, 6}) == value);  // nothing but the layer matters
  return value;
}

status refusal(auto const& sampler) {
  return strata::make_plan(sampler, strata::kv_classes::uniform(12), {}).state();
}

}  // namespace

TEST_CASE("a constant probability is the same everywhere") {
  probability_schedule const constant = 0.3;
  CHECK(at_step(constant, 0) == 0.3);
  CHECK(at_step(constant, last_step) == 0.3);
  CHECK(at_layer(constant, 0) == 0.3);
  CHECK(at_layer(constant, 255) == 0.3);
  CHECK(at_layer(probability_schedule{}, 7) == 1);
}

TEST_CASE("over steps: constant, then a straight line, then constant") {
  auto const up = probability_schedule::over_steps(0.2, 0.8, 10, 20);
  CHECK(at_step(up, 0) == 0.2);
  CHECK(at_step(up, 9) == 0.2);
  CHECK(at_step(up, 10) == 0.2);
  CHECK(at_step(up, 11) == Approx(0.26));
  CHECK(at_step(up, 15) == Approx(0.5));
  CHECK(at_step(up, 19) == Approx(0.74));
  CHECK(at_step(up, 20) == 0.8);
  CHECK(at_step(up, last_step) == 0.8);

  auto const down = probability_schedule::over_steps(1, 0, 0, 4);
  CHECK(at_step(down, 0) == 1);
  CHECK(at_step(down, 1) == Approx(0.75));
  CHECK(at_step(down, 3) == Approx(0.25));
  CHECK(at_step(down, 4) == 0);
}

TEST_CASE("over steps: where the line has no length, it jumps at `to`") {
  for (std::uint64_t const from : {100u, 101u, 5000u}) {
    auto const jump = probability_schedule::over_steps(0.9, 0.1, from, 100);
    CHECK(at_step(jump, 0) == 0.9);
    CHECK(at_step(jump, 99) == 0.9);
    CHECK(at_step(jump, 100) == 0.1);
    CHECK(at_step(jump, 101) == 0.1);
  }
  auto const at_once = probability_schedule::over_steps(0.9, 0.1, 0, 0);
  CHECK(at_step(at_once, 0) == 0.1);
}

TEST_CASE("over steps: numbers near 2^64 do not wrap") {
  auto const schedule = probability_schedule::over_steps(0, 1, last_step - 4, last_step);
  CHECK(at_step(schedule, 0) == 0);
  CHECK(at_step(schedule, last_step - 4) == 0);
  CHECK(at_step(schedule, last_step - 2) == Approx(0.5));
  CHECK(at_step(schedule, last_step) == 1);
}

TEST_CASE("over depth: first layer, last layer, a straight line between") {
  auto const schedule = probability_schedule::over_depth(0.9, 0.1, 5);
  CHECK(at_layer(schedule, 0) == 0.9);
  CHECK(at_layer(schedule, 1) == Approx(0.7));
  CHECK(at_layer(schedule, 2) == Approx(0.5));
  CHECK(at_layer(schedule, 3) == Approx(0.3));
  CHECK(at_layer(schedule, 4) == 0.1);
  auto const two = probability_schedule::over_depth(0.9, 0.1, 2);
  CHECK(at_layer(two, 0) == 0.9);
  CHECK(at_layer(two, 1) == 0.1);
  CHECK(at_layer(probability_schedule::over_depth(0.9, 0.1, 1), 0) == 0.1);
}

TEST_CASE("a schedule never leaves the interval of its ends") {
  for (auto const first : {0.0, 0.1, 1.0 / 3, 1.0})
    for (auto const last : {0.0, 0.7, 1.0}) {
      auto const schedule = probability_schedule::over_steps(first, last, 3, 1000);
      double previous = first;
      for (std::uint64_t step = 0; step < 1100; ++step) {
        auto const value = schedule({0}, {0, step, 0, 0, 0});
        REQUIRE((first <= last ? value >= previous && value <= last
                               : value <= previous && value >= last));
        previous = value;
      }
    }
}

TEST_CASE("check names what is no probability, in millionths") {
  status const ok{};
  for (auto const good : {0.0, -0.0, 1.0, 0.5, 5e-324})
    CHECK(probability_schedule(good).check() == ok);
  CHECK(probability_schedule(-0.1).check() == status{errc::not_a_probability, {}, -100000, 1});
  CHECK(probability_schedule(1.5).check() == status{errc::not_a_probability, {}, 1500000, 1});
  auto const refused = [](double bad, errc code) {
    CHECK(probability_schedule(bad).check().code == code);
    CHECK(probability_schedule::over_steps(bad, 0.5, 0, 9).check().code == code);
    CHECK(probability_schedule::over_steps(0.5, bad, 0, 9).check().code == code);
    CHECK(probability_schedule::over_depth(0.5, bad, 9).check().code == code);
  };
  for (auto const bad : {-5e-324, 1 + 0x1p-52, -3.0, 1e9}) refused(bad, errc::not_a_probability);
  for (auto const bad : {not_a_number, infinity, -infinity, 1e300, -1e300})
    refused(bad, errc::probability_not_finite);
}

TEST_CASE("no plan is drawn with what is no probability") {
  auto const refused = [](double bad, errc code) {
    CHECK(refusal(strata::random_previous(bad)).code == code);
    CHECK(refusal(strata::random_window<3>(bad)).code == code);
    CHECK(refusal(strata::coin_to_map(strata::grouped_map(12, 3), bad)).code == code);
    CHECK(refusal(strata::random_leader_set{bad}).code == code);
    CHECK(refusal(strata::random_leader_set{0.5, 1, bad}).code == code);
    auto const schedule = probability_schedule::over_depth(0.5, bad, 12);
    CHECK(refusal(strata::random_previous(schedule)).code == code);
    CHECK(refusal(strata::any_sampler(strata::random_previous(bad))).code == code);
  };
  refused(not_a_number, errc::probability_not_finite);
  refused(-0.1, errc::not_a_probability);
  refused(1.5, errc::not_a_probability);
}
