// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 2: what a sampler is offered, and what it may answer.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <strata/plan.hpp>
#include <strata/routing/sampler.hpp>

#include "support/models.hpp"
#include "support/oracle.hpp"
#include "support/print.hpp"
#include "support/samplers.hpp"

using strata::candidates;
using strata::draw_key;
using strata::errc;
using strata::layer_id;
using strata::status;

namespace {

struct offer {
  std::vector<std::int32_t> layers;
  std::int32_t reader, preceding, first;
  draw_key key;
};

/// Reads itself and writes down what it was asked.
struct listener {
  std::vector<offer>* heard;
  layer_id operator()(candidates c, draw_key key) const noexcept {
    offer o{{}, c.reader().index, c.preceding(), c.first().index, key};
    for (std::int32_t i = 0; i < c.size(); ++i) o.layers.push_back(c[i].index);
    heard->push_back(o);
    return c.reader();
  }
};

/// Layer `at` is sent to `answer`.
struct misled {
  std::int32_t at, answer;
  constexpr layer_id operator()(candidates c, draw_key) const noexcept {
    return c.reader().index == at ? layer_id{answer} : c.reader();
  }
};

struct may_throw {
  layer_id operator()(candidates c, draw_key) const { return c.reader(); }
};
struct answers_a_number {
  int operator()(candidates c, draw_key) const noexcept { return c.reader().index; }
};
struct owns_memory {
  std::vector<int> log;
  layer_id operator()(candidates c, draw_key) const noexcept { return c.reader(); }
};
struct remembers {
  int calls = 0;
  layer_id operator()(candidates c, draw_key) noexcept { return c[calls++ % c.size()]; }
};

}  // namespace

static_assert(strata::routing_sampler<listener> && strata::routing_sampler<misled>);
static_assert(!strata::routing_sampler<may_throw>);
static_assert(!strata::routing_sampler<answers_a_number>);
static_assert(!strata::routing_sampler<owns_memory>);
static_assert(!strata::routing_sampler<remembers>, "a sampler has no state");

TEST_CASE("candidates know their reader and what precedes it") {
  layer_id const layers[] = {{1}, {4}, {6}};
  candidates const c{layers};
  CHECK(c.size() == 3);
  CHECK(c.preceding() == 2);
  CHECK(c.first() == layer_id{1});
  CHECK(c[1] == layer_id{4});
  CHECK(c.reader() == layer_id{6});
  for (std::int32_t l = -1; l < 9; ++l) CHECK(c.contains({l}) == (l == 1 || l == 4 || l == 6));
}

TEST_CASE("a sampler is offered the layers of its class and stage, itself last, once per layer") {
  draw_key const key{1, 2, 3, 4, 5};
  for (auto const& m : support::all_models()) {
    CAPTURE(m.name);
    std::vector<offer> heard;
    REQUIRE(strata::make_plan(listener{&heard}, m.classes(), key).ok());
    std::size_t next = 0;
    for (std::int32_t l = 0; l < m.num_layers(); ++l) {
      auto const expected = support::candidates_of(m, l);
      if (expected.empty()) continue;  // no K/V: not asked
      REQUIRE(next < heard.size());
      auto const& o = heard[next++];
      REQUIRE(o.layers == expected);
      REQUIRE(o.reader == l);
      REQUIRE(o.first == expected.front());
      REQUIRE(o.preceding == static_cast<std::int32_t>(expected.size()) - 1);
      REQUIRE(o.key == key);
    }
    CHECK(next == heard.size());
  }
}

TEST_CASE_TEMPLATE("a draw answers a candidate, in every model", Sampler, SUPPORT_ALL_SAMPLERS) {
  static_assert(strata::routing_sampler<Sampler>);
  for (auto const& m : support::all_models()) {
    auto const sampler = support::sampler_for<Sampler>::make(m);
    auto const classes = m.classes();
    CAPTURE(m.name);
    std::uint64_t const draws = m.num_layers() > 100 ? 3 : 100;
    for (std::uint64_t step = 0; step < draws; ++step) {
      auto const plan = strata::make_plan(sampler, classes, {11, step, 0, 0, 0});
      REQUIRE(plan.ok());
      for (std::int32_t l = 0; l < m.num_layers(); ++l) {
        auto const expected = support::candidates_of(m, l);
        auto const source = (*plan)[{l}].k.source.index;
        if (expected.empty()) {
          REQUIRE(source == -1);
          continue;
        }
        REQUIRE(std::find(expected.begin(), expected.end(), source) != expected.end());
        REQUIRE((*plan)[{l}].v.source.index == source);
        if (expected.size() == 1) REQUIRE(source == l);  // one candidate means itself
      }
    }
  }
}

TEST_CASE("an answer that was not offered is refused, with the layer named") {
  auto const m = support::crazy_quilt();
  auto const outcome = [&](std::int32_t at, std::int32_t answer) {
    return strata::make_plan(misled{at, answer}, m.classes(), {}).state();
  };
  auto const illegal = [](std::int32_t at, std::int32_t answer, std::int64_t offered) {
    return status{errc::illegal_draw, {at}, answer, offered};
  };
  CHECK(outcome(7, 4).ok());
  CHECK(outcome(7, 3).ok());
  CHECK(outcome(7, -1) == illegal(7, -1, 4));
  CHECK(outcome(7, 8) == illegal(7, 8, 4));  // above the reader
  CHECK(outcome(7, 6) == illegal(7, 6, 4));  // of another class
  CHECK(outcome(7, 5) == illegal(7, 5, 4));  // without K/V
  CHECK(outcome(8, 7) == illegal(8, 7, 1));  // on another stage
  CHECK(outcome(1, 1000) == illegal(1, 1000, 1));
  CHECK(outcome(5, 1000).ok());  // a layer without K/V is not asked
}
