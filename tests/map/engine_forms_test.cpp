// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Maps of real models as their files write them, there and back, and what is refused.
#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <strata/map/engine_forms.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/plan.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::layer_id;
namespace forms = strata::forms;

namespace {

using list = std::vector<std::int32_t>;

list sources_of(strata::table_map const& map) {
  list sources;
  for (layer_id l{0}; l.index < map.num_layers(); ++l.index) sources.push_back(map.source(l).index);
  return sources;
}
strata::table_map table(list const& sources) { return *strata::table_map::make(sources); }

/// `local` layers with a window, then a full one, and so on. Heads of Gemma's sizes.
strata::kv_classes gemma(std::int32_t layers, std::int32_t local, std::int32_t window,
                         std::int32_t full_dim) {
  strata::layer_kind sliding, full;
  sliding.kv = {.kv_heads = 2, .k_dim = 256, .v_dim = 256};
  sliding.window = window;
  full.kv = {.kv_heads = 2, .k_dim = full_dim, .v_dim = full_dim};
  full.kv.rope.theta = 1e6;
  std::vector<strata::layer_kind> all;
  for (std::int32_t l = 0; l < layers; ++l)
    all.push_back(l % (local + 1) == local ? full : sliding);
  return *strata::kv_classes::make(all);
}

struct gemma_case {
  char const* name;
  std::int32_t layers, shared, local, window, full_dim;
  std::int32_t sliding_source, full_source;
};

// Layers, shared layers and the order of kinds as in the models' config.json.
gemma_case const gemmas[] = {{"Gemma 3n E2B", 30, 10, 4, 512, 256, 18, 19},
                             {"Gemma 3n E4B", 35, 15, 4, 512, 256, 18, 19},
                             {"Gemma 4 E2B", 35, 20, 4, 512, 512, 13, 14},
                             {"Gemma 4 E4B", 42, 18, 5, 512, 512, 22, 23}};

}  // namespace

TEST_CASE("Gemma: Hugging Face's rule by type and llama.cpp's by position agree on real models") {
  for (auto const& g : gemmas) {
    CAPTURE(g.name);
    auto const classes = gemma(g.layers, g.local, g.window, g.full_dim);
    auto const map = forms::from_shared_tail(g.shared, classes);
    REQUIRE(map.ok());
    list expected;
    for (std::int32_t l = 0; l < g.layers; ++l) {
      bool const full = l % (g.local + 1) == g.local;
      expected.push_back(l < g.layers - g.shared ? l : full ? g.full_source : g.sliding_source);
    }
    CHECK(sources_of(*map) == expected);
    CHECK(*forms::from_positional_tail(g.shared, classes) == *map);
    CHECK(*forms::to_shared_tail(*map, classes) == g.shared);
    CHECK(strata::num_leaders(*map, classes) == g.layers - g.shared);
    CHECK(make_plan(*map, classes)->tail_begin == g.layers - g.shared - 1);
    // The strategy string says the same.
    CHECK(*strata::parse_strategy("tail:" + std::to_string(g.shared), classes) == *map);
  }
}

// Six layers, the tail of two behind two full ones: by position a sliding layer would read a full
// one, which is no source for it.
TEST_CASE("by type and by position are two rules that differ on a model made up for it") {
  strata::layer_kind sliding, full;
  sliding.window = 512;
  strata::layer_kind const layers[] = {sliding, full, full, full, sliding, full};
  auto const classes = *strata::kv_classes::make(layers);
  CHECK(sources_of(*forms::from_shared_tail(2, classes)) == list{0, 1, 2, 3, 0, 3});
  CHECK(sources_of(*forms::from_positional_tail(2, classes)) == list{0, 1, 2, 3, 2, 3});
  strata::layer_kind const others[] = {full, sliding, sliding, full};
  auto const refused = forms::from_positional_tail(1, *strata::kv_classes::make(others)).state();
  CHECK(refused == strata::status{errc::window_too_small, {3}, 2, 512});
}

TEST_CASE("AFM: all layers of the second block read the last of the first") {
  // 56 layers at a ratio of 5 to 3.
  auto const classes = strata::kv_classes::uniform(56);
  auto const map = forms::from_shared_tail(21, classes);
  REQUIRE(map.ok());
  for (std::int32_t l = 0; l < 56; ++l) CHECK(map->source({l}).index == (l < 35 ? l : 34));
  CHECK(*forms::to_shared_tail(*map, classes) == 21);
}

TEST_CASE("Hunyuan: factor 2") {
  auto const classes = strata::kv_classes::uniform(64);
  auto const map = forms::from_share_factor(2, classes);
  REQUIRE(map.ok());
  CHECK(*map == strata::table_map::from(strata::grouped_map(64, 2)));
  CHECK(*forms::to_share_factor(*map, classes) == 2);
  CHECK(*forms::to_share_factor(strata::table_map::from(strata::identity_map(64)), classes) == 1);
  auto const refused =
      forms::to_share_factor(table({0, 0, 2, 2, 2, 2}), strata::kv_classes::uniform(6));
  CHECK(refused.state() == strata::status{errc::form_cannot_express, {4}, 2, 4});
}

// Layers without K/V read nobody, and fit any factor.
TEST_CASE("a share factor is found where layers without K/V come between") {
  strata::layer_kind full, none;
  none.has_kv = false;
  strata::layer_kind const layers[] = {full, none, full, full, none, full};
  auto const classes = *strata::kv_classes::make(layers);
  CHECK(*forms::to_share_factor(table({0, 1, 0, 3, 4, 3}), classes) == 3);
  CHECK(*forms::to_share_factor(table({0, 1, 0, 0, 4, 5}), classes) == 5);
  CHECK(*forms::to_share_factor(table({0, 1, 2, 3, 4, 5}), classes) == 1);
  CHECK(*forms::to_share_factor(table({0, 1, 0, 0, 4, 0}), classes) == 6);
  CHECK(forms::to_share_factor(table({0, 1, 0, 3, 4, 5}), classes).state() ==
        strata::status{errc::form_cannot_express, {5}, 5, 3});
  // Layer 5 would read layer 4, which has nothing to read.
  CHECK(forms::to_share_factor(table({0, 1, 2, 2, 4, 5}), classes).state().code ==
        errc::source_without_kv);
}

TEST_CASE("Hymba: groups of neighbours, and three global layers of their own") {
  list const layers = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 16,
                       17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30};
  list const offsets = {0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29};
  strata::layer_kind global, local;
  global.kv = local.kv = {.kv_heads = 5, .k_dim = 64, .v_dim = 64};
  local.window = 1024;
  std::vector<strata::layer_kind> kinds(32, local);
  kinds[0] = kinds[15] = kinds[31] = global;
  auto const classes = *strata::kv_classes::make(kinds);
  auto const map = forms::from_groups(layers, offsets, classes);
  REQUIRE(map.ok());
  CHECK(sources_of(*map) == list{0,  1,  1,  3,  3,  5,  5,  7,  7,  9,  9,  11, 11, 13, 13, 15,
                                 16, 16, 16, 19, 19, 21, 21, 23, 23, 25, 25, 27, 27, 29, 29, 31});
  CHECK(strata::num_leaders(*map, classes) == 17);
  auto const wrong = [&](list const& l, list const& o) {
    return forms::from_groups(l, o, classes).state();
  };
  CHECK(wrong({1, 2, 2, 3}, {0, 2, 4}) == strata::status{errc::layer_in_two_groups, {2}, 2, 0});
  CHECK(wrong({2, 1}, {0, 2}) == strata::status{errc::source_above_reader, {1}, 2, 1});
  CHECK(wrong({1, 32}, {0, 2}).code == errc::layer_out_of_range);
  CHECK(wrong({1, 2}, {0, 3}).code == errc::offsets_descend);
  CHECK(wrong({14, 15}, {0, 2}).code ==
        errc::window_too_small);  // the global one reads a local one
}

TEST_CASE("DeepSeek-V4.1: four sources of forty layers, of which two have no compressed K/V") {
  strata::layer_kind none, by_two, by_one;
  none.has_kv = false;
  by_two.kv = by_one.kv = {.kv_heads = 1, .k_dim = 512, .v_dim = 512};
  by_two.kv.rope.scaling = 2;  // entries stand for two tokens
  std::vector<strata::layer_kind> kinds;
  for (int l = 0; l < 40; ++l) kinds.push_back(l < 2 ? none : l < 20 ? by_two : by_one);
  auto const classes = *strata::kv_classes::make(kinds);
  list const ids = {2, 8, 14, 20};
  auto const map = forms::from_source_layers(ids, classes);
  REQUIRE(map.ok());
  for (std::int32_t l = 2; l < 40; ++l)
    CHECK(map->source({l}).index == (l < 8 ? 2 : l < 14 ? 8 : l < 20 ? 14 : 20));
  list back(8);
  auto const count = forms::to_source_layers(*map, classes, back);
  REQUIRE(count.ok());
  CHECK(*count == 4);
  back.resize(4);
  CHECK(back == ids);
  // Late layers run on a prompt's last token only.
  CHECK(make_plan(*map, classes)->tail_begin == 20);
  list const late = {3, 8, 14, 20}, unordered = {8, 2, 14, 20}, without = {0, 2, 20};
  CHECK(forms::from_source_layers(late, classes).state() ==
        strata::status{errc::no_leader_before, {2}, -1, 0});
  CHECK(forms::from_source_layers(unordered, classes).state().code == errc::list_not_ascending);
  CHECK(forms::from_source_layers(without, classes).state().code == errc::source_without_kv);
}

TEST_CASE("CLA: a pattern of sources, and llm-foundry's numbers below zero") {
  auto const classes = strata::kv_classes::uniform(6);
  CHECK(sources_of(*forms::from_sharing_pattern(list{0, 0, 2, 2, 4, 4}, classes)) ==
        list{0, 0, 2, 2, 4, 4});
  CHECK(forms::from_sharing_pattern(list{0, 1, 2, 1, 4, 4}, classes).state() ==
        strata::status{errc::pattern_descends, {3}, 1, 2});
  CHECK(forms::from_sharing_pattern(list{0, 0, 1, 2, 4, 4}, classes).state() ==
        strata::status{errc::source_not_a_leader, {2}, 1, 0});
  CHECK(forms::from_sharing_pattern(list{0, 0}, classes).state().code ==
        errc::layer_count_mismatch);
  // Each says how far back, through layers that read others themselves.
  CHECK(sources_of(*forms::from_relative(list{0, -1, -1, 0, -1, -5}, classes)) ==
        list{0, 0, 0, 3, 3, 0});
  CHECK(forms::from_relative(list{0, -2, 0, 0, 0, 0}, classes).state().code ==
        errc::source_out_of_range);
  CHECK(forms::from_relative(list{0, 1, 0, 0, 0, 0}, classes).state() ==
        strata::status{errc::source_above_reader, {1}, 2, 1});
}

TEST_CASE("LCKV: strings of sources") {
  strata::layer_kind full, sliding;
  sliding.window = 1024;
  strata::layer_kind const layers[] = {full, sliding, sliding, full, sliding, sliding};
  auto const mixed = *strata::kv_classes::make(layers);
  auto const read = forms::from_layer_string("0_1s_1s_3_1s_1s", mixed);
  REQUIRE(read.ok());
  CHECK(sources_of(read->map) == list{0, 1, 1, 3, 1, 1});
  for (std::int32_t l = 0; l < 6; ++l) CHECK(read->sliding.contains({l}) == (l % 3 != 0));
  char text[64] = {};
  auto const size = forms::to_layer_string(read->map, mixed, text);
  REQUIRE(size.ok());
  CHECK(std::string_view(text, static_cast<std::size_t>(*size)) == "0_1s_1s_3_1s_1s");
  CHECK(forms::to_layer_string(read->map, mixed, std::span(text).first(14)).state() ==
        strata::status{errc::memory_too_small, strata::no_layer, 14, 15});

  // TinyLlama's 22 layers. CLA; a bottom sandwich; and LCKV's own, whose sources lie above.
  auto const classes = strata::kv_classes::uniform(22);
  std::string cla, top = "0";
  for (int l = 0; l < 22; ++l) cla += (l > 0 ? "_" : "") + std::to_string(l - l % 2);
  for (int l = 1; l < 21; ++l) top += "_20";
  top += "_21";
  CHECK(forms::from_layer_string(cla, classes)->map ==
        strata::table_map::from(strata::grouped_map(22, 2)));
  CHECK(forms::from_layer_string(top, classes).state() ==
        strata::status{errc::source_above_reader, {1}, 20, 1});
  CHECK(forms::from_layer_string("0_0_2", classes).state() ==
        strata::status{errc::layer_count_mismatch, strata::no_layer, 3, 22});
  auto const four = strata::kv_classes::uniform(4);
  auto const code = [&](std::string_view s) { return forms::from_layer_string(s, four).state(); };
  CHECK(code("0_0_2_2").ok());
  CHECK(code("") == strata::status{errc::parse_expected_number, strata::no_layer, 0, 0});
  CHECK(code("0__2_2") == strata::status{errc::parse_expected_number, strata::no_layer, 2, 0});
  CHECK(code("0_0_2_2_2").code == errc::parse_trailing_text);
  CHECK(code("0_0x_2_2").code == errc::parse_trailing_text);
  CHECK(code("0_0_2_-1").code == errc::parse_expected_number);
  CHECK(code("0_0_99999999999_2").code == errc::parse_number_too_large);
}

TEST_CASE("FusedKV: a source for K and another for V is a plan, a sum of two is none") {
  // Storage layers are the lower half; the Lite form takes V from the bottom and K from the middle.
  auto const classes = strata::kv_classes::uniform(8);
  list const k = {0, 1, 2, 3, 3, 3, 3, 3}, v = {0, 1, 2, 3, 0, 0, 0, 0};
  CHECK(make_plan(table(k), table(v), classes).ok());
  list const sums = {0, 3, 0, 3, 0, 3, 0, 3}, offsets = {0, 0, 0, 0, 0, 2, 4, 6, 8};
  CHECK(forms::from_source_lists(sums, offsets, classes).state() ==
        strata::status{errc::several_sources, {4}, 2, 1});
  list const one = {3, 3, 3, 3}, single = {0, 0, 0, 0, 0, 1, 2, 3, 4};
  CHECK(sources_of(*forms::from_source_lists(one, single, classes)) == k);
  CHECK(forms::from_source_lists(one, list{0, 0}, classes).state().code ==
        errc::layer_count_mismatch);
  CHECK(forms::from_source_lists(one, list{0, 0, 0, 0, 0, 1, 2, 3, 5}, classes).state().code ==
        errc::offsets_descend);
}

TEST_CASE("any map goes through an engine's list and back and a form that cannot says where") {
  std::mt19937 random(1);
  std::int32_t tails = 0, nearest = 0, others = 0;
  for (int i = 0; i < 300; ++i) {
    auto const layers = static_cast<std::int32_t>(random() % 9 + 1);
    auto const classes = strata::kv_classes::uniform(layers);
    list sources;
    for (std::int32_t l = 0; l < layers; ++l) {
      list leaders = {l};
      for (std::int32_t s = 0; s < l; ++s)
        if (sources[static_cast<std::size_t>(s)] == s) leaders.push_back(s);
      sources.push_back(leaders[random() % leaders.size()]);
    }
    auto const map = table(sources);
    list written(static_cast<std::size_t>(layers));
    REQUIRE(forms::to_reuse_index(map, classes, written).ok());
    for (std::int32_t l = 0; l < layers; ++l) {
      auto const at = static_cast<std::size_t>(l);
      CHECK(written[at] == (sources[at] == l ? -1 : sources[at]));
    }
    CHECK(*forms::from_reuse_index(written, classes) == map);
    char text[64] = {};
    auto const size = forms::to_layer_string(map, classes, text);
    REQUIRE(size.ok());
    CHECK(forms::from_layer_string({text, static_cast<std::size_t>(*size)}, classes)->map == map);
    auto const tail = forms::to_shared_tail(map, classes);
    if (tail.ok()) CHECK(*forms::from_shared_tail(*tail, classes) == map);
    if (!tail.ok()) CHECK(tail.state().code == errc::form_cannot_express);
    list leaders(static_cast<std::size_t>(layers));
    auto const count = forms::to_source_layers(map, classes, leaders);
    if (count.ok()) {
      leaders.resize(static_cast<std::size_t>(*count));
      CHECK(*forms::from_source_layers(leaders, classes) == map);
    } else {
      CHECK(count.state().code == errc::form_cannot_express);
    }
    tails += tail.ok();
    nearest += count.ok();
    others += !tail.ok() && !count.ok();
  }
  CHECK(tails > 30);
  CHECK(nearest > 60);
  CHECK(others > 60);
}

TEST_CASE("a tail that is longer than the model, or has nothing before it") {
  auto const classes = strata::kv_classes::uniform(4);
  CHECK(forms::from_shared_tail(4, classes).state() ==
        strata::status{errc::no_leader_before, {0}, -1, 0});
  CHECK(forms::from_shared_tail(5, classes).state().code == errc::value_too_large);
  CHECK(forms::from_shared_tail(-1, classes).state().code == errc::value_too_small);
  CHECK(forms::from_shared_tail(0, classes).ok());
  // No sliding layer before the tail, so that one in it has no source of its type.
  strata::layer_kind full, sliding;
  sliding.window = 512;
  strata::layer_kind const layers[] = {full, full, sliding};
  CHECK(forms::from_shared_tail(1, *strata::kv_classes::make(layers)).state() ==
        strata::status{errc::no_leader_before, {2}, -1, 0});
}
