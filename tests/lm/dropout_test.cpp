// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What is dropped: as many numbers as the rate says, others in every pass, layer and half of it.
// (That the backward pass drops the same: gradient_test.cpp.)
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include <strata/random.hpp>

#include "dropout.hpp"
#include "tiny_run.hpp"

namespace {

/// What becomes of ones.
std::vector<float> dropped(lm::dropout const& what, std::uint32_t place, std::int64_t count) {
  std::vector<float> x(static_cast<std::size_t>(count), 1.F);
  lm::drop(what, place, 0, x.data(), count);
  return x;
}

double share_of_zeros(std::vector<float> const& x) {
  double zeros = 0;
  for (auto const v : x) zeros += v == 0;
  return zeros / static_cast<double>(x.size());
}

}  // namespace

TEST_CASE("dropout drops the share that it is given, and the mean stays") {
  constexpr std::int64_t count = 1 << 20;
  for (double const rate : {.1, .25, .5, .9375}) {
    CAPTURE(rate);
    auto const x = dropped({rate, {3, 5, 1}}, lm::mlp_input(2), count);
    // Six standard deviations of a share of so many.
    CHECK(std::abs(share_of_zeros(x) - rate) < 6 * std::sqrt(rate * (1 - rate) / count));
    auto const kept = std::ranges::max(x);
    CHECK(kept == doctest::Approx(1 / (1 - rate)).epsilon(1e-4));
    CHECK(std::ranges::all_of(x, [&](float v) { return v == 0 || v == kept; }));
  }
  CHECK(share_of_zeros(dropped({}, 0, 999)) == 0);
  CHECK(share_of_zeros(dropped({0, {3, 5}}, 0, 999)) == 0);
  CHECK(!lm::dropout(0, {3, 5}).drops());
}

TEST_CASE("a number is dropped by the bits that the file's head names") {
  strata::draw_key const key{11, (std::uint64_t{1} << 33) + 5, 2, 3};
  lm::dropout const what(.25, key);
  for (std::uint32_t b = 0; b < 100; ++b) {
    auto const words = strata::draw_words(key, 9, strata::draw_purpose::dropout, b);
    float factors[8];
    what.factors(9, b, factors);
    for (int i = 0; i < 8; ++i) {
      auto const bits = i % 2 == 0 ? words.word[i / 2] % 65536 : words.word[i / 2] / 65536;
      CHECK((factors[i] == 0) == (bits < 16384));
    }
  }
}

TEST_CASE("neighbours are dropped independently, whatever lies in one draw") {
  auto const x = dropped({.5, {1, 2}}, 0, 1 << 20);
  for (std::size_t apart = 1; apart <= 16; ++apart) {
    double both = 0;
    for (std::size_t i = 0; i + apart < x.size(); ++i) both += x[i] == 0 && x[i + apart] == 0;
    CHECK(std::abs(both / (1 << 20) - .25) < .003);
  }
}

TEST_CASE("every seed, step, part, layer and half drops numbers of its own") {
  std::set<std::vector<float>> distinct;
  std::size_t asked = 0;
  auto const add = [&](strata::draw_key const& key, std::uint32_t place) {
    distinct.insert(dropped({.5, key}, place, 256));
    ++asked;
  };
  strata::draw_key const key{7, 3, 1};
  for (std::int32_t l = 0; l < 4; ++l)
    for (auto const place : {lm::attention_input(l), lm::mlp_input(l)}) add(key, place);
  add({8, 3, 1}, 0);
  add({7, 4, 1}, 0);
  add({7, 3, 2}, 0);
  add({7 + (std::uint64_t{1} << 32), 3, 1}, 0);
  CHECK(distinct.size() == asked);
}

TEST_CASE("a part of a tensor drops what the whole does there, and 2^35 numbers are not too many") {
  lm::dropout const what(.5, {1, 2, 3});
  auto const whole = dropped(what, 5, 100);
  std::vector<float> parts(100, 1.F);
  lm::drop(what, 5, 0, parts.data(), 64);
  lm::drop(what, 5, 64, parts.data() + 64, 36);
  CHECK(parts == whole);
  std::vector<float> far(100, 1.F), farther(100, 1.F);
  lm::drop(what, 5, std::int64_t{1} << 35, far.data(), 100);
  lm::drop(what, 5, std::int64_t{1} << 36, farther.data(), 100);
  CHECK(far != whole);
  CHECK(farther != far);
}

TEST_CASE("a run with dropout is another, is bit for bit its own again, and scores without it") {
  auto const weights_after = [](double rate, std::int32_t threads) {
    auto o = tiny::run_options(true);
    o.dropout = rate;
    o.full_half = true;
    o.draws_per_step = 2;
    tiny::tiny_run run(o, threads);
    for (int i = 0; i < 3; ++i) run.trainer().step();
    return tiny::bits(run.trainer().model().weights());
  };
  CHECK(weights_after(.2, 1) == weights_after(.2, 2));
  CHECK(weights_after(.2, 1) != weights_after(0, 1));

  auto o = tiny::run_options(false);
  tiny::tiny_run plain(o);
  o.dropout = .5;
  tiny::tiny_run dropping(o);
  tiny::tokens const tokens(o.model, 2, o.model.context);
  auto const plan = tiny::plans_of_all_samplers(o.model)[0].plan;
  auto& model = dropping.trainer().model();
  auto const expected = plain.trainer().loss(plan, tokens.batch());
  CHECK(dropping.trainer().loss(plan, tokens.batch()) == expected);
  CHECK(model.forward(plan, tokens.batch(), 1, {.5, {1, 2}}) != expected);
  CHECK(dropping.trainer().loss(plan, tokens.batch()) == expected);
}

// With the text again in the routed half, and every layer reading itself, both halves would predict
// the same if they dropped the same; then nothing would be learnt from what was kept but half of
// each gradient (training_test.cpp).
TEST_CASE("the half that is not routed drops numbers of its own") {
  auto o = tiny::run_options(false);
  o.routing = "self";
  o.full_half = true;
  auto const norm = [&](double distill, double rate) {
    o.distill = distill;
    o.dropout = rate;
    tiny::tiny_run run(o);
    return run.trainer().step().gradient_norm;
  };
  CHECK(norm(1, 0) == doctest::Approx(norm(1e-9, 0) / 2).epsilon(1e-4));
  CHECK(norm(1, .3) != doctest::Approx(norm(1e-9, .3) / 2).epsilon(1e-3));
}

TEST_CASE("the largest pass of a run is its largest part") {
  auto o = tiny::run_options(false);
  o.batch = 10;
  auto const sequences = [&](bool halves, std::int32_t draws) {
    o.full_half = halves;
    o.draws_per_step = draws;
    auto const most = lm::largest_pass(o);
    CHECK(most.length == 31);
    return most.num_seqs;
  };
  CHECK(sequences(false, 1) == 10);
  CHECK(sequences(false, 3) == 4);
  CHECK(sequences(true, 1) == 5);
  CHECK(sequences(true, 5) == 5);
}
