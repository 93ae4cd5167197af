// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Routing strings: every form draws what the sampler that it names draws, and every mistake points
// at its character.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/strategy.hpp>
#include <strata/plan.hpp>
#include <strata/routing/any_sampler.hpp>

#include "support/models.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::kv_classes;
using strata::parse_routing;
using strata::probability_schedule;
using strata::status;

namespace {

kv_classes const twelve = kv_classes::uniform(12);

/// Whether a text draws the same routes as a sampler, over many keys.
template <class Sampler>
bool draws_like(std::string_view text, Sampler const& sampler, kv_classes const& classes = twelve) {
  auto const parsed = parse_routing(text, classes);
  if (!parsed.ok()) return false;
  for (std::uint64_t step = 0; step < 200; ++step) {
    strata::draw_key const key{.seed = 5, .step = step};
    auto const a = make_plan(*parsed, classes, key), b = make_plan(sampler, classes, key);
    if (!a.ok() || !b.ok() || !(*a == *b)) return false;
  }
  return true;
}

struct reading {
  char const* text;
  double value;
};

strata::table_map strategy(std::string_view text, kv_classes const& classes = twelve) {
  return *strata::parse_strategy(text, classes);
}

}  // namespace

TEST_CASE("every form of routing") {
  CHECK(draws_like("self", strata::self_only{}));
  reading const readings[] = {{"rcla:0.5", 0.5},    {"rcla:.25", 0.25}, {"rcla:1", 1},
                              {"rcla:0", 0},        {"rcla:0.6", 0.6},  {"rcla:1.000", 1},
                              {"rcla:00.75", 0.75}, {"rcla:1.", 1}};
  for (auto const& r : readings) {
    CAPTURE(r.text);
    CHECK(draws_like(r.text, strata::random_previous(r.value)));
  }
  CHECK(draws_like("cla:4", strata::fixed_route(strata::grouped_map(12, 4))));
  CHECK(draws_like("cla:1", strata::self_only{}));
  CHECK(draws_like("rdcla:4:0.3", strata::coin_to_map(strata::grouped_map(12, 4), 0.3)));
  CHECK(draws_like("sets:1,0.5,.25", strata::random_leader_set{1, 0.5, 0.25}));
  CHECK(draws_like("sets:0", strata::random_leader_set{0}));
  CHECK(draws_like(
      "mix:full/every:2/leaders:0,4,9",
      strata::strategy_mixture{strategy("full"), strategy("every:2"), strategy("leaders:0,4,9")}));
  CHECK(draws_like(
      "mix:tail:3/groups:6,6/spread:5",
      strata::strategy_mixture{strategy("tail:3"), strategy("groups:6,6"), strategy("spread:5")}));
  CHECK_FALSE(draws_like("rcla:0.5", strata::random_previous(0.6)));
}

// The number that a human writes is the number that the compiler reads.
TEST_CASE("decimal probabilities are read exactly") {
  reading const readings[] = {{"rcla:0.1", 0.1},
                              {"rcla:.7", .7},
                              {"rcla:0.333", 0.333},
                              {"rcla:0.9999999", 0.9999999},
                              {"rcla:0.123456789012345", 0.123456789012345}};
  for (auto const& r : readings) {
    CAPTURE(r.text);
    auto const parsed = parse_routing(r.text, twelve);
    REQUIRE(parsed.ok());
    auto const& rcla = std::get<strata::random_previous<>>(parsed->get());
    CHECK(rcla.self_probability({3}, {}) == r.value);
  }
}

TEST_CASE("forms with groups find their leaders within a KV class") {
  auto const gemma = support::gemma_like(14).classes();
  CHECK(draws_like("cla:5", strata::fixed_route(strategy("every:5", gemma)), gemma));
  CHECK(draws_like("rdcla:5:.4", strata::coin_to_map(strategy("every:5", gemma), .4), gemma));
  auto const no_global = [](std::int64_t offset) {
    return status{errc::parse_no_leader_before, {5}, offset, 0};
  };
  CHECK(parse_routing("cla:2", gemma).state() == no_global(4));
  CHECK(parse_routing("rdcla:2:0.5", gemma).state() == no_global(6));
  CHECK(parse_routing("mix:full/every:2", gemma).state() == no_global(15));
  CHECK(parse_routing("mix:full/leaders:0,2,6,8", gemma).state() == no_global(21));
}

TEST_CASE("every mistake in a routing points at its character") {
  struct mistake {
    std::string text;
    errc code;
    std::int64_t offset, bound;
  };
  auto const unknown = errc::parse_unknown_routing, strategy = errc::parse_unknown_strategy;
  auto const no_number = errc::parse_expected_number, small = errc::parse_number_too_small;
  auto const big = errc::parse_number_too_large, list = errc::parse_list_too_long;
  auto const trailing = errc::parse_trailing_text, separator = errc::parse_expected_separator;
  std::string const sixteen = "sets:1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1";
  std::string const eight = "mix:full/full/full/full/full/full/full/full";
  mistake const mistakes[] = {
      {"", unknown, 0, 0},
      {"rcl:0.5", unknown, 0, 0},
      {"rcla", separator, 4, 0},
      {"rcla0.5", separator, 4, 0},
      {"rclas:0.5", unknown, 0, 0},
      {"cla", separator, 3, 0},
      {"rdcla", separator, 5, 0},
      {"sets", separator, 4, 0},
      {"mix", separator, 3, 0},
      {"RCLA:0.5", unknown, 0, 0},
      {"every:2", unknown, 0, 0},
      {"selfish", trailing, 4, 0},
      {"self:1", trailing, 4, 0},
      {"rcla:", no_number, 5, 0},
      {"rcla:.", no_number, 5, 0},
      {"rcla:-0.5", no_number, 5, 0},
      {"rcla:nan", no_number, 5, 0},
      {"rcla:1.1", big, 5, 1},
      {"rcla:2", big, 5, 1},
      {"rcla:1.0000001", big, 5, 1},
      {"rcla:0.5.5", trailing, 8, 0},
      {"rcla:1e-1", trailing, 6, 0},
      {"rcla:50%", big, 5, 1},
      {"rcla:0,5", trailing, 6, 0},
      {"cla:", no_number, 4, 0},
      {"cla:0", small, 4, 1},
      {"cla:257", big, 4, 256},
      {"cla:4:0.5", trailing, 5, 0},
      {"rdcla:", no_number, 6, 0},
      {"rdcla:0:0.5", small, 6, 1},
      {"rdcla:4", separator, 7, 0},
      {"rdcla:4,0.5", separator, 7, 0},
      {"rdcla:4:", no_number, 8, 0},
      {"rdcla:4:1.5", big, 8, 1},
      {"rdcla:4:0.5 ", trailing, 11, 0},
      {"sets:", no_number, 5, 0},
      {"sets:0.5,", no_number, 9, 0},
      {"sets:0.5,1.5", big, 9, 1},
      {"sets:0.5/0.25", trailing, 8, 0},
      {sixteen + ",1", list, 37, 16},
      {"mix:", strategy, 4, 0},
      {"mix:full/", strategy, 9, 0},
      {"mix:full,full", trailing, 8, 0},
      {"mix:full/self", strategy, 9, 0},
      {"mix:full/every:0", small, 15, 1},
      {"mix:every:2/leaders:0,4,4", errc::parse_not_ascending, 24, 4},
      {"mix:every:2/groups:5,5", errc::parse_groups_do_not_fill, 19, 12},
      {"mix:tail:12", big, 9, 11},
      {"mix:leaders:1", errc::parse_first_layer_must_lead, 12, 0},
      {eight + "/full", list, 44, 8},
  };
  for (auto const& m : mistakes) {
    CAPTURE(m.text);
    auto const state = parse_routing(m.text, twelve).state();
    CHECK(state == status{m.code, {}, m.offset, m.bound});
    auto const caret =
        "\n  " + m.text + "\n  " + std::string(static_cast<std::size_t>(m.offset), ' ') + "^";
    CHECK(std::string(describe(state, m.text).c_str()) == describe(state).c_str() + caret);
  }
  CHECK(parse_routing(sixteen, twelve).ok());
  CHECK(parse_routing(eight, twelve).ok());
  CHECK(parse_routing("self", kv_classes::uniform(0)).state() == status{errc::no_layers, {}, 0, 1});
}

TEST_CASE("an any_sampler is self_only until told otherwise, and takes any shipped sampler") {
  static_assert(strata::routing_sampler<strata::any_sampler>);
  CHECK(std::holds_alternative<strata::self_only>(strata::any_sampler{}.get()));
  strata::any_sampler const sampler = strata::random_leader_set{0.5};
  CHECK(std::holds_alternative<strata::random_leader_set>(sampler.get()));
  static_assert(!std::is_constructible_v<strata::any_sampler, int>);
}

TEST_CASE("a schedule replaces the self_probability where there is one") {
  auto const ramp = probability_schedule::over_steps(1, 0.2, 10, 20);
  auto rcla = *parse_routing("rcla:0.5", twelve), rdcla = *parse_routing("rdcla:4:0.5", twelve);
  REQUIRE(rcla.set_self_probability(ramp).ok());
  REQUIRE(rdcla.set_self_probability(ramp).ok());
  for (std::uint64_t step = 0; step < 40; ++step) {
    strata::draw_key const key{.seed = 6, .step = step};
    CHECK(*make_plan(rcla, twelve, key) ==
          *make_plan(strata::random_previous<>(ramp), twelve, key));
    CHECK(*make_plan(rdcla, twelve, key) ==
          *make_plan(strata::coin_to_map<strata::grouped_map<>>(strata::grouped_map(12, 4), ramp),
                     twelve, key));
  }
  for (auto const* text : {"self", "cla:4", "sets:0.5", "mix:full"}) {
    auto other = *parse_routing(text, twelve);
    CAPTURE(text);
    CHECK(other.set_self_probability(ramp).code == errc::unsupported);
    CHECK(draws_like(text, other));
  }
  auto const before = *make_plan(rcla, twelve, {.step = 30});
  CHECK(rcla.set_self_probability(1.5).code == errc::not_a_probability);
  CHECK(rcla.set_self_probability(std::numeric_limits<double>::quiet_NaN()).code ==
        errc::probability_not_finite);
  CHECK(*make_plan(rcla, twelve, {.step = 30}) == before);  // a refused schedule changes nothing
}

TEST_CASE("an any_sampler refuses what its sampler refuses") {
  status const mismatch{errc::layer_count_mismatch, {}, 12, 13};
  auto const deeper = kv_classes::uniform(13);
  for (auto const* text : {"cla:4", "rdcla:4:0.5", "mix:full/every:2"}) {
    CAPTURE(text);
    auto const parsed = *parse_routing(text, twelve);
    CHECK(parsed.check(twelve).ok());
    CHECK(parsed.check(deeper) == mismatch);
    CHECK(make_plan(parsed, deeper, {}).state() == mismatch);
  }
  strata::any_sampler const wrong = strata::random_previous(-0.5);
  CHECK(make_plan(wrong, twelve, {}).state() == status{errc::not_a_probability, {}, -500'000, 1});
}
