// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Strategy strings: what every form means, and for every mistake the character that it begins at.
#include <doctest/doctest.h>

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <strata/map/grouped_map.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/map/strategy.hpp>
#include <strata/map/tail_map.hpp>
#include <strata/plan.hpp>

#include "support/maps.hpp"
#include "support/models.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::parse_strategy;
using strata::status;

namespace {

std::vector<std::int32_t> sources_of(std::string_view text, strata::kv_classes const& classes) {
  auto const map = parse_strategy(text, classes);
  return map.ok() ? support::sources(*map) : std::vector<std::int32_t>{};
}
std::vector<std::int32_t> sources_of(std::string_view text, std::int32_t num_layers) {
  return sources_of(text, strata::kv_classes::uniform(num_layers));
}

/// The error of a text whose number at `offset` gives `layer` nothing to read.
status left_alone(std::int32_t layer, std::int64_t offset) {
  return {errc::parse_no_leader_before, {layer}, offset, 0};
}

bool leads_exactly(std::string_view text, std::int32_t num_layers,
                   std::set<std::int32_t> const& leaders) {
  auto const map = parse_strategy(text, num_layers);
  return map.ok() && support::is_nearest_leader_map(*map, num_layers, leaders);
}

}  // namespace

TEST_CASE("every form of strategy") {
  CHECK(leads_exactly("full", 5, {0, 1, 2, 3, 4}));
  CHECK(leads_exactly("every:2", 6, {0, 2, 4}));
  CHECK(leads_exactly("every:3", 7, {0, 3, 6}));
  CHECK(leads_exactly("every:1", 3, {0, 1, 2}));
  CHECK(leads_exactly("every:256", 3, {0}));
  CHECK(leads_exactly("spread:3", 8, {0, 2, 5}));
  CHECK(leads_exactly("spread:8", 8, {0, 1, 2, 3, 4, 5, 6, 7}));
  CHECK(leads_exactly("groups:2,3,1", 6, {0, 2, 5}));
  CHECK(leads_exactly("groups:6", 6, {0}));
  CHECK(leads_exactly("leaders:0", 4, {0}));
  CHECK(leads_exactly("leaders:0,4,9", 12, {0, 4, 9}));
  CHECK(leads_exactly("leaders:0,11", 12, {0, 11}));
  CHECK(leads_exactly("tail:0", 4, {0, 1, 2, 3}));
  CHECK(leads_exactly("tail:3", 4, {0}));
  CHECK(leads_exactly("tail:20", 30, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  CHECK(leads_exactly("every:002", 4, {0, 2}));
}

// The paper's figure 4, and the depths at which "every k" is no whole fraction.
TEST_CASE("the paper's strategies") {
  CHECK(sources_of("leaders:0,2", 5) == std::vector{0, 0, 2, 2, 2});
  CHECK(strata::num_leaders(*parse_strategy("every:4", 30)) == 8);
  CHECK(strata::num_leaders(*parse_strategy("every:3", 28)) == 10);
}

TEST_CASE("strings and maps of the same name agree at every depth") {
  for (std::int32_t layers = 1; layers <= 40; ++layers)
    for (std::int32_t n = 1; n <= layers; ++n) {
      auto const number = std::to_string(n);
      REQUIRE(sources_of("every:" + number, layers) ==
              support::sources(strata::grouped_map(layers, n)));
      REQUIRE(sources_of("spread:" + number, layers) ==
              support::sources(strata::spread_map(layers, n)));
      REQUIRE(sources_of("tail:" + std::to_string(n - 1), layers) ==
              support::sources(strata::tail_map(layers, n - 1)));
    }
}

TEST_CASE("a strategy is parsed at compile time") {
  constexpr auto map = parse_strategy("groups:2,2", 4);
  static_assert(map.ok() && map->source({3}) == strata::layer_id{2});
  static_assert(parse_strategy("every:0", 4).state() ==
                status{errc::parse_number_too_small, {}, 6, 1});
}

TEST_CASE("every mistake in a strategy points at its character") {
  struct mistake {
    char const* text;
    errc code;
    std::int64_t offset, bound;
  };
  auto const unknown = errc::parse_unknown_strategy;
  auto const no_number = errc::parse_expected_number, small = errc::parse_number_too_small;
  auto const big = errc::parse_number_too_large, separator = errc::parse_expected_separator;
  auto const trailing = errc::parse_trailing_text, order = errc::parse_not_ascending;
  auto const misfit = errc::parse_groups_do_not_fill, large = errc::parse_group_too_large;
  auto const first = errc::parse_first_layer_must_lead;
  mistake const mistakes[] = {
      {"", unknown, 0, 0},
      {"ful", unknown, 0, 0},
      {" full", unknown, 0, 0},
      {"Full", unknown, 0, 0},
      {"every", separator, 5, 0},
      {"every4", separator, 5, 0},
      {"spread=3", separator, 6, 0},
      {"tail ", separator, 4, 0},
      {"groups", separator, 6, 0},
      {"leaders0", separator, 7, 0},
      {"everything:2", unknown, 0, 0},
      {"leader:0", unknown, 0, 0},
      {"fullest", trailing, 4, 0},
      {"full ", trailing, 4, 0},
      {"full,full", trailing, 4, 0},
      {"every:", no_number, 6, 0},
      {"every:x", no_number, 6, 0},
      {"every:-1", no_number, 6, 0},
      {"every:+1", no_number, 6, 0},
      {"every: 2", no_number, 6, 0},
      {"every:0", small, 6, 1},
      {"every:257", big, 6, 256},
      {"every:99999999999999999999999999", big, 6, 256},
      {"every:2x", trailing, 7, 0},
      {"every:2.5", trailing, 7, 0},
      {"every:2,3", trailing, 7, 0},
      {"spread:", no_number, 7, 0},
      {"spread:0", small, 7, 1},
      {"spread:13", big, 7, 12},
      {"spread:3/4", trailing, 8, 0},
      {"tail:", no_number, 5, 0},
      {"tail:12", big, 5, 11},
      {"tail:1 ", trailing, 6, 0},
      {"groups:", no_number, 7, 0},
      {"groups:4,", no_number, 9, 0},
      {"groups:4,,8", no_number, 9, 0},
      {"groups:0,12", small, 7, 1},
      {"groups:4,300", big, 9, 256},
      {"groups:4,4", misfit, 7, 12},
      {"groups:4,4,5", large, 11, 12},
      {"groups:4,4,5,", large, 11, 12},
      {"groups:4,4,4,1", large, 13, 12},
      {"groups:256", large, 7, 12},
      {"groups:4,8;", trailing, 10, 0},
      {"leaders:", no_number, 8, 0},
      {"leaders:,0", no_number, 8, 0},
      {"leaders:0,", no_number, 10, 0},
      {"leaders:0,12", big, 10, 11},
      {"leaders:0,4,4", order, 12, 4},
      {"leaders:0,9,4", order, 12, 9},
      {"leaders:0,0", order, 10, 0},
      {"leaders:1", first, 8, 0},
      {"leaders:4,9", first, 8, 0},
      {"leaders:0,4 9", trailing, 11, 0},
  };
  for (auto const& m : mistakes) {
    CAPTURE(m.text);
    auto const state = parse_strategy(m.text, 12).state();
    CHECK(state == status{m.code, {}, m.offset, m.bound});
    // The picture of the mistake: the text, and a mark under that character.
    auto const caret = "\n  " + std::string(m.text) + "\n  " +
                       std::string(static_cast<std::size_t>(m.offset), ' ') + "^";
    CHECK(std::string(describe(state, m.text).c_str()) == describe(state).c_str() + caret);
  }
}

TEST_CASE("what a mistake in a strategy reads like") {
  std::string_view const text = "leaders:0,9,4";
  CHECK(std::string(describe(parse_strategy(text, 12).state(), text).c_str()) ==
        "the leader at character 12 does not come after the one before it, 9\n"
        "  leaders:0,9,4\n"
        "              ^");
}

TEST_CASE("models that no plan can hold are refused before the text is read") {
  CHECK(parse_strategy("nonsense", 0).state() == status{errc::no_layers, {}, 0, 1});
  CHECK(parse_strategy("full", 257).state() == status{errc::too_many_layers, {}, 257, 256});
  CHECK(parse_strategy("full", 256).ok());
}

// Five local layers to a global one: 0..4 local, 5 global, 6..10 local, 11 global, 12, 13 local.
TEST_CASE("a tail reads the last leader of each KV class") {
  auto const classes = support::gemma_like(14).classes();
  CHECK(sources_of("tail:0", classes) == std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13});
  CHECK(sources_of("tail:2", classes) == std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 10, 10});
  CHECK(sources_of("tail:3", classes) == std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 5, 10, 10});
  CHECK(sources_of("tail:8", classes) == std::vector{0, 1, 2, 3, 4, 5, 4, 4, 4, 4, 4, 5, 4, 4});
  // One more and no global layer leads.
  auto const none = parse_strategy("tail:9", classes);
  CHECK(none.state() == left_alone(5, 5));
  CHECK(std::string(describe(none.state(), "tail:9").c_str()) ==
        "at character 5: layer 5 is left without a leader of its KV class at or before it\n"
        "  tail:9\n"
        "       ^");
}

TEST_CASE("every other layer reads the nearest leader that it may read") {
  auto const gemma = support::gemma_like(14).classes();
  CHECK(sources_of("leaders:0,5,8", gemma) ==
        std::vector{0, 0, 0, 0, 0, 5, 0, 0, 8, 8, 8, 5, 8, 8});
  // every:2 has no global layer among its leaders before layer 5.
  CHECK(parse_strategy("every:2", gemma).state() == left_alone(5, 6));
  CHECK(parse_strategy("spread:3", gemma).state() == left_alone(5, 7));
  // The group that should have been split, the leader that comes too late, the end of the list.
  CHECK(parse_strategy("groups:4,8,2", gemma).state() == left_alone(5, 9));
  CHECK(parse_strategy("leaders:0,2,11", gemma).state() == left_alone(5, 12));
  CHECK(parse_strategy("leaders:0,2", gemma).state() == left_alone(5, 11));
  CHECK(sources_of("every:5", gemma) == std::vector{0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 10, 5, 10, 10});
  CHECK(sources_of("groups:5,6,3", gemma) ==
        std::vector{0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 11, 0, 0});

  // Windows 512, all, 64 in turn: a source's window covers its reader's.
  auto const windows = support::mixed_windows(7).classes();
  CHECK(sources_of("leaders:0,1", windows) == std::vector{0, 1, 1, 1, 1, 1, 1});
  CHECK(sources_of("leaders:0,1,3", windows) == std::vector{0, 1, 1, 3, 1, 3, 3});
  CHECK(parse_strategy("leaders:0,2", windows).state() == left_alone(1, 10));

  auto const stages = support::two_stages(6).classes();
  CHECK(sources_of("leaders:0,3", stages) == std::vector{0, 0, 0, 3, 3, 3});
  CHECK(parse_strategy("leaders:0,4", stages).state() == left_alone(3, 10));
}

// K/V at layers 3 and 7 of 8; the others have no say and none is asked of them.
TEST_CASE("layers without K/V neither lead nor follow") {
  auto const hybrid = support::linear_hybrid(8).classes();
  for (auto const* text : {"full", "every:1", "leaders:3,7", "spread:8"}) {
    auto const map = parse_strategy(text, hybrid);
    CAPTURE(text);
    REQUIRE(map.ok());
    CHECK(map->source({7}).index == 7);
    CHECK(strata::num_leaders(*map, hybrid) == 2);
  }
  auto const one = parse_strategy("leaders:3", hybrid);
  REQUIRE(one.ok());
  CHECK(one->source({7}).index == 3);
  CHECK(make_plan(*one, hybrid)->k_slots == 1);
  CHECK(parse_strategy("tail:4", hybrid)->source({7}).index == 3);
  CHECK(parse_strategy("tail:5", hybrid).state() == left_alone(3, 5));
  // A list that names one of them means something else. Its first leader comes no later than the
  // first layer that has K/V.
  auto const no_kv = [](std::int64_t offset, std::int64_t layer) {
    return status{errc::parse_leader_without_kv, {}, offset, layer};
  };
  CHECK(parse_strategy("leaders:0,3,7", hybrid).state() == no_kv(8, 0));
  CHECK(parse_strategy("leaders:3,5,7", hybrid).state() == no_kv(10, 5));
  CHECK(parse_strategy("leaders:4", hybrid).state() ==
        status{errc::parse_first_layer_must_lead, {}, 8, 3});
  CHECK(parse_strategy("leaders:1", hybrid).state() == no_kv(8, 1));
}

TEST_CASE("all layers shared or one leader or none of the class or one layer alone") {
  // All shared: somebody must keep K and V.
  static_assert(parse_strategy("tail:6", 6).state() ==
                status{errc::parse_number_too_large, {}, 5, 5});
  CHECK(nearest_leader_map({}, strata::kv_classes::uniform(6)).state().code ==
        errc::no_leader_before);
  // One leader.
  auto const one = parse_strategy("leaders:0", 6);
  REQUIRE(one.ok());
  CHECK(make_plan(*one)->k_slots == 1);
  CHECK(make_plan(*one)->tail_begin == 0);
  // One leader, and a layer of another class.
  CHECK(parse_strategy("leaders:0", support::gemma_like(6).classes()).state() == left_alone(5, 9));
  // One layer leads, whatever it is called.
  for (auto const* text :
       {"full", "every:1", "every:256", "spread:1", "groups:1", "leaders:0", "tail:0"}) {
    CAPTURE(text);
    REQUIRE(parse_strategy(text, 1).ok());
    CHECK(make_plan(*parse_strategy(text, 1))->k_slots == 1);
  }
  for (auto const* text : {"tail:1", "leaders:1", "groups:2", "spread:2", "every:0"})
    CHECK(!parse_strategy(text, 1).ok());
}

TEST_CASE("leaders as a mask") {
  strata::layer_mask mask;
  mask.insert({0});
  mask.insert({2});
  auto const map = nearest_leader_map(mask, strata::kv_classes::uniform(5));
  REQUIRE(map.ok());
  CHECK(support::sources(*map) == std::vector{0, 0, 2, 2, 2});
  CHECK(nearest_leader_map({}, strata::kv_classes::uniform(2)).state() ==
        status{errc::no_leader_before, {0}, -1, 0});
  CHECK(nearest_leader_map(mask, strata::kv_classes{}).state() ==
        status{errc::no_layers, {}, 0, 1});
}
