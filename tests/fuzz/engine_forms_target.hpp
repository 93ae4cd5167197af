// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Engines' forms of maps: a byte for the model, a byte for the form, then numbers (fuzz.hpp: of one
// byte or five) or text. What is taken is a map of the model and the one that the form means; written
// in every form that has words for it and read again it is the same map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <strata/map/engine_forms.hpp>
#include <strata/plan.hpp>

#include "fuzz/fuzz.hpp"
#include "support/models.hpp"

namespace fuzz::engine_forms {

enum reach { refused, taken, written_as_tail, written_as_factor, written_as_leaders, num_reaches };

using list = std::vector<std::int32_t>;
using strata::errc;
using strata::layer_id;
namespace forms = strata::forms;

inline strata::kv_classes const& model(std::uint8_t which) {
  static auto const models = [] {
    auto all = support::all_models();
    all.push_back(support::uniform_model(6));
    auto const local = support::local_attention(), full = support::full_attention();
    all.push_back({"Gemma's tail", {local, full, local, full, local, full, local, full}});
    auto const linear = support::linear_attention();
    all.push_back({"gaps", {linear, full, linear, full, full, linear, full, linear}});
    all.push_back({"gaps above the first", {full, linear, full, full, linear, full}});
    std::vector<strata::kv_classes> classes;
    for (auto const& m : all) classes.push_back(m.classes());
    return classes;
  }();
  return models[which % models.size()];
}

/// As many numbers as a byte says, or as there are layers.
inline list numbers_of(input& in, std::int32_t layers) {
  auto const count = in.number<std::uint8_t>();
  list numbers(count == 0xFF ? static_cast<std::size_t>(layers) : count);
  for (auto& n : numbers) n = in.near_zero();
  return numbers;
}

/// The sources that matter: those of layers with K/V.
inline list sources_of(strata::table_map const& map, strata::kv_classes const& classes) {
  list sources;
  for (layer_id l{0}; map.num_layers() > l.index; ++l.index)
    sources.push_back(classes[l].has_kv ? map.source(l).index : -1);
  return sources;
}

inline bool same(strata::result<strata::table_map> const& a, list const& sources,
                 strata::kv_classes const& classes) {
  return a.ok() && sources_of(*a, classes) == sources;
}

inline void check_index(strata::table_map const& map, list const& sources,
                        strata::kv_classes const& classes) {
  list index(sources.size());
  require(forms::to_reuse_index(map, classes, index).ok(), "any map is a reuse index");
  require(same(forms::from_reuse_index(index, classes), sources, classes), "and comes back");
  index.push_back(-1);
  require(!forms::to_reuse_index(map, classes, index).ok(), "not one of another length");
}

inline void check_string(strata::table_map const& map, list const& sources,
                         strata::kv_classes const& classes) {
  auto const size = forms::to_layer_string(map, classes, {}).state().bound;
  std::string text(static_cast<std::size_t>(size), '?');
  auto const written = forms::to_layer_string(map, classes, text);
  require(written.ok() && *written == size, "any map is a layer string of the length it names");
  auto const read = forms::from_layer_string(text, classes);
  require(read.ok() && sources_of(read->map, classes) == sources, "and comes back");
  for (layer_id l{0}; map.num_layers() > l.index; ++l.index)
    require(read->sliding.contains(l) == (classes[l].window < strata::unbounded_window),
            "and says what slides");
}

/// A form of one number: written where any number says the map, and only there.
template <class To, class From>
bool check_number(To const& to, From const& from, strata::table_map const& map, list const& sources,
                  strata::kv_classes const& classes) {
  auto const number = to(map, classes);
  if (number.ok()) {
    require(same(from(*number, classes), sources, classes), "a number says the map");
    return true;
  }
  auto const layers = classes.num_layers();
  for (std::int32_t n = 0; n <= layers && layers <= 16; ++n)
    require(!same(from(n, classes), sources, classes), "no number says a map that is refused");
  return false;
}

inline bool check_leaders(strata::table_map const& map, list const& sources,
                          strata::kv_classes const& classes) {
  list leaders(sources.size());
  auto const count = forms::to_source_layers(map, classes, leaders);
  if (!count.ok()) {
    require(count.state().code == errc::form_cannot_express, "leaders that others pass by");
    return false;
  }
  leaders.resize(static_cast<std::size_t>(*count));
  require(same(forms::from_source_layers(leaders, classes), sources, classes), "leaders say it");
  if (leaders.empty()) return true;
  leaders.pop_back();
  auto const little = forms::to_source_layers(map, classes, leaders).state();
  require(little.code == errc::memory_too_small && little.bound == *count, "and need their room");
  return true;
}

/// What holds of every map, whatever form it came in.
inline int check_map(strata::table_map const& map, strata::kv_classes const& classes) {
  require(check(map, classes).ok(), "what is taken is a map of the model");
  auto const plan = make_plan(map, classes);
  require(plan.ok() && check(*plan, classes, strata::use::serving).ok(), "it has a plan");
  auto const sources = sources_of(map, classes);
  check_index(map, sources, classes);
  check_string(map, sources, classes);
  int came = taken;
  if (check_number(forms::to_shared_tail, forms::from_shared_tail, map, sources, classes))
    came = written_as_tail;
  if (check_number(forms::to_share_factor, forms::from_share_factor, map, sources, classes))
    came = written_as_factor;
  if (check_leaders(map, sources, classes) && came == taken) came = written_as_leaders;
  return came;
}

/// The last layer before the tail that is of a reader's kind, or, by position, that it stands for.
inline std::int32_t tail_source(std::int32_t shared, std::int32_t reader, bool by_position,
                                strata::kv_classes const& classes) {
  auto const before = classes.num_layers() - shared;
  auto const& kind = classes[{reader}];
  if (reader < before) return reader;
  if (by_position) return before - (kind.window < strata::unbounded_window ? 2 : 1);
  for (auto l = before - 1; l >= 0; --l)
    if (classes[{l}] == kind) return l;
  return -1;
}

/// What a form says of a layer, read again.
struct meaning {
  std::int32_t (*of)(meaning const&, std::int32_t layer, strata::kv_classes const&);
  std::int32_t number = 0;
  list const* first = nullptr;
  list const* offsets = nullptr;

  std::int32_t at(std::int32_t i) const { return (*first)[static_cast<std::size_t>(i)]; }
};

inline int finish(strata::result<strata::table_map> const& map, meaning const& means,
                  strata::kv_classes const& classes) {
  if (!map.ok()) return refused;
  for (std::int32_t l = 0; l < classes.num_layers(); ++l)
    if (classes[{l}].has_kv)
      require(map->source({l}).index == means.of(means, l, classes), "the form means this map");
  return check_map(*map, classes);
}

inline int read_number(std::uint8_t form, input& in, strata::kv_classes const& classes) {
  auto const n = in.near_zero();
  if (form == 0)
    return finish(forms::from_shared_tail(n, classes),
                  {[](auto& m, auto l, auto& c) { return tail_source(m.number, l, false, c); }, n},
                  classes);
  if (form == 1)
    return finish(forms::from_positional_tail(n, classes),
                  {[](auto& m, auto l, auto& c) { return tail_source(m.number, l, true, c); }, n},
                  classes);
  return finish(forms::from_share_factor(n, classes),
                {[](auto& m, auto l, auto&) { return l / m.number * m.number; }, n}, classes);
}

inline int read_list(std::uint8_t form, input& in, strata::kv_classes const& classes) {
  auto const given = numbers_of(in, classes.num_layers());
  if (form == 3)
    return finish(forms::from_reuse_index(given, classes),
                  {[](auto& m, auto l, auto&) { return m.at(l) < 0 ? l : m.at(l); }, 0, &given},
                  classes);
  if (form == 4)
    return finish(forms::from_sharing_pattern(given, classes),
                  {[](auto& m, auto l, auto&) { return m.at(l); }, 0, &given}, classes);
  if (form == 5)
    return finish(forms::from_source_layers(given, classes),
                  {[](auto& m, auto l, auto& c) {
                     std::int32_t found = -1;
                     for (auto const leader : *m.first)
                       if (leader <= l && c.readable({l}, {leader}, strata::use::serving).ok())
                         found = leader;
                     return found;
                   },
                   0, &given},
                  classes);
  return finish(forms::from_relative(given, classes),
                {[](auto& m, auto l, auto&) {
                   while (m.at(l) != 0) l += m.at(l);
                   return l;
                 },
                 0, &given},
                classes);
}

inline int read_lists(std::uint8_t form, input& in, strata::kv_classes const& classes) {
  auto const offsets = numbers_of(in, classes.num_layers() + 1);
  auto const given = numbers_of(in, classes.num_layers());
  if (form == 7)
    return finish(forms::from_groups(given, offsets, classes),
                  {[](auto& m, auto l, auto&) {
                     auto const& o = *m.offsets;
                     for (std::size_t g = 0; g + 1 < o.size(); ++g)
                       for (auto i = o[g]; i < o[g + 1]; ++i)
                         if (m.at(i) == l) return m.at(o[g]);
                     return l;
                   },
                   0, &given, &offsets},
                  classes);
  return finish(forms::from_source_lists(given, offsets, classes),
                {[](auto& m, auto l, auto&) {
                   auto const& o = *m.offsets;
                   auto const at = static_cast<std::size_t>(l);
                   return o[at] == o[at + 1] ? l : m.at(o[at]);
                 },
                 0, &given, &offsets},
                classes);
}

inline int one_input(bytes data) {
  input in(data);
  auto const& classes = model(in.number<std::uint8_t>());
  auto const form = static_cast<std::uint8_t>(in.number<std::uint8_t>() % 10);
  if (form < 3) return read_number(form, in, classes);
  if (form < 7) return read_list(form, in, classes);
  if (form < 9) return read_lists(form, in, classes);
  auto const read = forms::from_layer_string(in.text(), classes);
  if (!read.ok()) return refused;
  for (std::int32_t l = 0; l < classes.num_layers(); ++l) {
    bool const marked = read->sliding.contains({l});
    require(!marked || in.text().find('s') != std::string_view::npos, "an s marks what slides");
  }
  return check_map(read->map, classes);
}

}  // namespace fuzz::engine_forms
