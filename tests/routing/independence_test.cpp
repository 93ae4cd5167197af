// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Draws that differ in layer, step, rank, sequence or purpose have nothing to do with each other;
// equal keys give equal draws.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "support/models.hpp"
#include "support/print.hpp"
#include "support/samplers.hpp"
#include "support/statistics.hpp"

namespace {

using strata::draw_key;

constexpr std::uint64_t draws_of_coins = 20000;

/// Chi-square of the four cells of two coins with probability `self` each, were they independent.
bool independent(std::array<std::int64_t, 4> const& cells, double self) {
  auto const other = 1 - self;
  return support::fits(cells, std::array{other * other, other * self, self * other, self * self});
}

/// Whether layer l reads itself, for l in 0..9.
std::array<bool, 10> selves(draw_key const& key) {
  auto const plan =
      *strata::make_plan(strata::random_previous(0.6), strata::kv_classes::uniform(10), key);
  std::array<bool, 10> self{};
  for (std::size_t l = 0; l < 10; ++l)
    self[l] = plan.layers[l].k.source.index == static_cast<std::int32_t>(l);
  return self;
}

/// Whether the coins of two keys, `first(i)` and `second(i)`, are independent on layers 1, 5 and 9.
template <class First, class Second>
bool keys_are_independent(First first, Second second) {
  std::array<std::int64_t, 4> cells[3] = {};
  for (std::uint32_t i = 0; i < draws_of_coins / 4; ++i) {
    auto const a = selves(first(i)), b = selves(second(i));
    for (std::size_t n = 0; n < 3; ++n) ++cells[n][a[1 + 4 * n] * 2u + b[1 + 4 * n]];
  }
  return independent(cells[0], 0.6) && independent(cells[1], 0.6) && independent(cells[2], 0.6);
}

}  // namespace

TEST_CASE("random_previous: the coins of any two layers are independent") {
  std::array<std::array<std::array<std::int64_t, 4>, 10>, 10> cells{};
  for (std::uint64_t step = 0; step < draws_of_coins; ++step) {
    auto const self = selves({30, step, 0, 0, 0});
    for (std::size_t a = 1; a < 10; ++a)
      for (std::size_t b = a + 1; b < 10; ++b) ++cells[a][b][self[a] * 2u + self[b]];
  }
  for (std::size_t a = 1; a < 10; ++a)
    for (std::size_t b = a + 1; b < 10; ++b) {
      CAPTURE(a);
      CAPTURE(b);
      CHECK(independent(cells[a][b], 0.6));
    }
}

TEST_CASE("random_previous: the sources of neighbouring layers are independent") {
  auto const classes = strata::kv_classes::uniform(6);
  std::vector<std::int64_t> counts(20);
  for (std::uint64_t step = 0; step < draws_of_coins; ++step) {
    auto const plan =
        *strata::make_plan(strata::random_previous(0.0), classes, {31, step, 0, 0, 0});
    ++counts[static_cast<std::size_t>(plan.layers[4].k.source.index * 5 +
                                      plan.layers[5].k.source.index)];
  }
  CHECK(support::fits(counts, std::vector<double>(20, 1.0 / 20)));
}

TEST_CASE("the next step, micro-batch, sequence, replica and seed draw afresh") {
  CHECK(keys_are_independent([](std::uint32_t i) { return draw_key{32, i, 0, 0, 0}; },
                             [](std::uint32_t i) { return draw_key{32, i + 1, 0, 0, 0}; }));
  CHECK(keys_are_independent([](std::uint32_t i) { return draw_key{32, i, 0, 0, 0}; },
                             [](std::uint32_t i) { return draw_key{32, i, 1, 0, 0}; }));
  CHECK(keys_are_independent([](std::uint32_t i) { return draw_key{32, i, 0, 0, 0}; },
                             [](std::uint32_t i) { return draw_key{32, i, 0, 1, 0}; }));
  CHECK(keys_are_independent([](std::uint32_t i) { return draw_key{32, i, 0, 0, 0}; },
                             [](std::uint32_t i) { return draw_key{32, i, 0, 0, 1}; }));
  CHECK(keys_are_independent([](std::uint32_t i) { return draw_key{32, i, 0, 0, 0}; },
                             [](std::uint32_t i) { return draw_key{33, i, 0, 0, 0}; }));
}

TEST_CASE("the data order is independent of the routes") {
  using strata::draw_purpose;
  std::array<std::int64_t, 4> coins{};
  std::vector<std::int64_t> picks(49);
  for (std::uint64_t step = 0; step < draws_of_coins; ++step) {
    draw_key const key{34, step, 0, 0, 0};
    auto const route = strata::draw_words(key, 3, draw_purpose::route);
    auto const order = strata::draw_words(key, 3, draw_purpose::data_order);
    ++coins[strata::coin(route, 0.6) * 2u + strata::coin(order, 0.6)];
    ++picks[static_cast<std::size_t>(strata::pick(route, 7) * 7 + strata::pick(order, 7))];
  }
  CHECK(independent(coins, 0.6));
  CHECK(support::fits(picks, std::vector<double>(49, 1.0 / 49)));
}

TEST_CASE_TEMPLATE("each field of the key changes some draw, and equal keys change none", Sampler,
                   strata::random_previous<>, strata::random_window<2>, strata::random_leader_set,
                   strata::coin_to_map<strata::table_map>, strata::strategy_mixture) {
  auto const m = support::uniform_model(24);
  auto const sampler = support::sampler_for<Sampler>::make(m);
  auto const draw = [&](std::uint64_t step, draw_key offset) {
    offset.step += step;
    return *strata::make_plan(sampler, m.classes(), offset);
  };
  for (draw_key const changed :
       {draw_key{1, 0, 0, 0, 0}, draw_key{0, 1000, 0, 0, 0}, draw_key{0, 0, 1, 0, 0},
        draw_key{0, 0, 0, 1, 0}, draw_key{0, 0, 0, 0, 1}}) {
    int differing = 0;
    for (std::uint64_t step = 0; step < 30; ++step) {
      differing += draw(step, {}) != draw(step, changed);
      REQUIRE(draw(step, changed) == draw(step, changed));  // recomputation
    }
    CHECK(differing > 10);
  }
}

TEST_CASE_TEMPLATE("the order of draws does not matter", Sampler, SUPPORT_ALL_SAMPLERS) {
  auto const m = support::crazy_quilt();
  auto const sampler = support::sampler_for<Sampler>::make(m);
  std::vector<draw_key> keys;
  for (std::uint32_t i = 0; i < 64; ++i) keys.push_back({i % 3, i, i % 5, i % 7, i % 2});
  std::vector<strata::route_plan> in_order, shuffled(64);
  for (auto const& key : keys) in_order.push_back(*strata::make_plan(sampler, m.classes(), key));
  std::vector<std::size_t> order(64);
  for (std::size_t i = 0; i < 64; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937(5));
  for (auto const i : order) {
    auto const copy = sampler;  // a draw depends on the parameters, not on the object
    shuffled[i] = *strata::make_plan(copy, m.classes(), keys[i]);
  }
  CHECK(in_order == shuffled);
}
