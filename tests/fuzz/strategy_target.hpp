// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Strategy and routing strings. A byte chooses the model, and whether the text is a routing; the rest
// is the text. What is accepted means what the words at the top of map/strategy.hpp say, read again
// here; what is refused is so at a character of the text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <strata/map/strategy.hpp>
#include <strata/plan.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/routing/fixed_route.hpp>

#include "fuzz/fuzz.hpp"
#include "support/models.hpp"

namespace fuzz::strategy {

enum reach { refused, map_made, routing_made, num_reaches };

inline strata::kv_classes const& model(std::uint8_t which) {
  static auto const models = [] {
    std::vector<strata::kv_classes> all;
    for (auto const& m : support::all_models()) all.push_back(m.classes());
    return all;
  }();
  return models[which % models.size()];
}

inline void check_refusal(strata::status const& s, std::string_view text) {
  require(s.code >= strata::errc::parse_unknown_strategy &&
              s.code <= strata::errc::parse_first_layer_must_lead,
          "a text is refused for what stands in it");
  require(s.value >= 0 && static_cast<std::size_t>(s.value) <= text.size(),
          "a refusal is at a character of the text");
  if (text.find('\0') != text.npos) return;  // ends what is shown
  require(std::string_view(strata::describe(s, text).c_str()).ends_with('^'),
          "a refusal shows its character");
}

/// The numbers behind the colon.
inline std::vector<std::int32_t> numbers_of(std::string_view text) {
  std::vector<std::int32_t> numbers;
  std::int32_t number = 0;
  for (char const c : text.substr(text.find(':') + 1)) {
    if (c == ',') numbers.push_back(number);
    number = c == ',' ? 0 : number * 10 + (c - '0');
  }
  numbers.push_back(number);
  return numbers;
}

/// The leaders that an accepted text names.
inline std::set<std::int32_t> leaders_of(std::string_view text, std::int32_t layers) {
  std::set<std::int32_t> leaders;
  auto const form = text.substr(0, text.find(':'));
  if (form == "full") {
    for (std::int32_t l = 0; l < layers; ++l) leaders.insert(l);
    return leaders;
  }
  auto const numbers = numbers_of(text);
  auto const first = numbers[0];
  if (form == "every")
    for (std::int32_t l = 0; l < layers; ++l)
      if (l % first == 0) leaders.insert(l);
  if (form == "spread")
    for (std::int32_t i = 0; i < first; ++i) leaders.insert(i * layers / first);
  if (form == "tail")
    for (std::int32_t l = 0; l + first < layers; ++l) leaders.insert(l);
  if (form == "leaders") leaders.insert(numbers.begin(), numbers.end());
  std::int32_t begin = 0;
  if (form == "groups")
    for (auto const size : numbers) leaders.insert(begin), begin += size;
  return leaders;
}

/// Whom a layer reads: the nearest leader before it of the same K and V whose window is enough.
inline std::int32_t nearest(std::set<std::int32_t> const& leaders, std::int32_t reader,
                            strata::kv_classes const& classes) {
  auto const& kind = classes[{reader}];
  for (auto l = reader; l >= 0; --l) {
    auto const& of = classes[{l}];
    if (leaders.count(l) == 1 && of.has_kv && of.kv == kind.kv && of.stage == kind.stage &&
        of.window >= kind.window)
      return l;
  }
  return -1;
}

inline void check_map(strata::table_map const& map, std::string_view text,
                      strata::kv_classes const& classes) {
  auto const layers = classes.num_layers();
  auto const leaders = leaders_of(text, layers);
  std::string again = "leaders:";
  std::int32_t stored = 0;
  for (std::int32_t l = 0; l < layers; ++l) {
    if (!classes[{l}].has_kv) continue;
    require(map.source({l}).index == nearest(leaders, l, classes), "the text means this map");
    if (map.source({l}).index != l) continue;
    again += (stored++ > 0 ? "," : "") + std::to_string(l);
  }
  if (stored > 0) {
    auto const read = strata::parse_strategy(again, classes);
    require(read.ok() && *read == map, "the leaders of a map, listed, are the map");
  }
  auto const plan = make_plan(map, classes);
  require(plan.ok(), "a map that was parsed has a plan");
  require(check(*plan, classes, strata::use::serving).ok(), "its plan serves");
  require(plan->k_slots == stored && plan->v_slots == stored, "leaders store, others do not");
  auto const drawn = make_plan(strata::fixed_route(map), classes, {});
  require(drawn.ok() && *drawn == *plan, "training by the map has the same plan");
}

inline void check_sampler(strata::any_sampler const& sampler, strata::kv_classes const& classes) {
  bool const fits = check(sampler, classes).ok();
  for (std::uint64_t step = 0; step < 2; ++step) {
    auto const plan = make_plan(sampler, classes, {.seed = 7, .step = step});
    require(plan.ok() == fits, "a sampler that fits the model draws plans");
    if (!plan.ok()) return;
    require(check(*plan, classes, strata::use::training).ok(), "a drawn plan trains");
    auto const again = make_plan(sampler, classes, {.seed = 7, .step = step});
    require(again.ok() && *again == *plan, "the same key draws the same plan");
  }
}

inline int one_input(bytes data) {
  input in(data);
  auto const head = in.number<std::uint8_t>();
  auto const& classes = model(head & 0x7F);
  auto const text = in.text();
  if (head >= 0x80) {
    auto const sampler = strata::parse_routing(text, classes);
    if (sampler.ok()) check_sampler(*sampler, classes);
    if (!sampler.ok()) check_refusal(sampler.state(), text);
    return sampler.ok() ? routing_made : refused;
  }
  auto const map = strata::parse_strategy(text, classes);
  if (map.ok()) check_map(*map, text, classes);
  if (!map.ok()) check_refusal(map.state(), text);
  return map.ok() ? map_made : refused;
}

}  // namespace fuzz::strategy
