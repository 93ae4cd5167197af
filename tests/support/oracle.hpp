// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The laws once more, as slowly and plainly as they can be written, and without the library's own
// checks: what the fast code is held against.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <strata/map/layer_map.hpp>
#include <strata/plan.hpp>

#include "models.hpp"

namespace support {

using strata::layer_id;

/// Law 3 without its reasons: may `reader` read `source` while training?
inline bool trains_with(model const& m, std::int32_t reader, std::int32_t source) {
  auto const& r = m.layers[static_cast<std::size_t>(reader)];
  auto const& s = m.layers[static_cast<std::size_t>(source)];
  return r.has_kv && s.has_kv && r.kv.kv_heads == s.kv.kv_heads && r.kv.k_dim == s.kv.k_dim &&
         r.kv.v_dim == s.kv.v_dim && r.kv.rope.theta == s.kv.rope.theta &&
         r.kv.rope.dims == s.kv.rope.dims && r.kv.rope.scaling == s.kv.rope.scaling &&
         r.kv.rope.interleaved == s.kv.rope.interleaved &&
         r.kv.rope.frequencies == s.kv.rope.frequencies && r.kv.capture == s.kv.capture &&
         r.stage == s.stage;
}

/// The same for serving, where the source's cache must reach as far back as the reader looks.
inline bool serves_with(model const& m, std::int32_t reader, std::int32_t source) {
  return trains_with(m, reader, source) && m.layers[static_cast<std::size_t>(source)].window >=
                                               m.layers[static_cast<std::size_t>(reader)].window;
}

/// The layers that a reader may be sent to while training: ascending, itself last.
inline std::vector<std::int32_t> candidates_of(model const& m, std::int32_t reader) {
  std::vector<std::int32_t> list;
  for (std::int32_t l = 0; l <= reader; ++l)
    if (trains_with(m, reader, l)) list.push_back(l);
  return list;
}

/// The first layer at which a map breaks law 1 or 3, or nothing.
template <class Map>
std::optional<std::int32_t> first_fault(Map const& map, model const& m) {
  for (std::int32_t l = 0; l < m.num_layers(); ++l) {
    if (!m.layers[static_cast<std::size_t>(l)].has_kv) continue;
    auto const s = map.source({l}).index;
    if (s < 0 || s > l || !serves_with(m, l, s) || map.source({s}).index != s) return l;
  }
  return {};
}

/// The first layer that a map sends to a layer which is no candidate, or nothing.
template <class Map>
std::optional<std::int32_t> first_illegal(Map const& map, model const& m) {
  for (std::int32_t l = 0; l < m.num_layers(); ++l) {
    if (!m.layers[static_cast<std::size_t>(l)].has_kv) continue;
    auto const list = candidates_of(m, l);
    if (std::find(list.begin(), list.end(), map.source({l}).index) == list.end()) return l;
  }
  return {};
}

/// What is wrong with one column (K or V) of a plan, or an empty string.
template <class Column>
std::string column_fault(strata::route_plan const& plan, model const& m, Column column,
                         std::int32_t slots) {
  auto const fault = [](std::int32_t l, char const* what) {
    return "layer " + std::to_string(l) + ": " + what;
  };
  std::int32_t stored = 0;
  for (std::int32_t l = 0; l < plan.num_layers; ++l) {
    strata::route const& mine = plan.layers[l].*column;
    bool const has_kv = m.layers[static_cast<std::size_t>(l)].has_kv;
    if (mine.source.valid() != has_kv) return fault(l, "source and has_kv disagree");
    std::int32_t readers = 0, highest = -1;
    for (std::int32_t r = 0; r < plan.num_layers; ++r)
      if ((plan.layers[r].*column).source.index == l) ++readers, highest = r;
    if (mine.stored != (readers > 0)) return fault(l, "stored, but not because somebody reads it");
    for (std::int32_t r = 0; r < plan.num_layers; ++r) {
      strata::route const& reader = plan.layers[r].*column;
      if (reader.source.index != l) continue;
      if (reader.slot.index != stored) return fault(r, "slots are not dense and ascending");
      if (reader.last_reader != (r == highest)) return fault(r, "the last reader is another");
    }
    if (mine.own_slot.index != (mine.stored ? stored : -1))
      return fault(l, "its own slot is wrong");
    stored += mine.stored;
    if (!has_kv && (mine.slot.valid() || mine.last_reader)) return fault(l, "has no K/V to route");
  }
  return stored == slots ? "" : "the number of slots is wrong";
}

/// The lowest layer from which on only the rows that want logits matter, found by trying them all.
inline std::int32_t tail_by_trial(strata::route_plan const& plan, model const& m) {
  auto const needs_all_rows_above = [&](std::int32_t t) {
    for (std::int32_t l = t; l < plan.num_layers; ++l) {
      if (!m.layers[static_cast<std::size_t>(l)].has_kv) return true;
      if (l > t && (plan.layers[l].k.stored || plan.layers[l].v.stored)) return true;
    }
    return false;
  };
  std::int32_t t = 0;
  while (needs_all_rows_above(t)) ++t;
  return t;
}

/// What is wrong with a plan for a model, or an empty string.
inline std::string plan_fault(strata::route_plan const& plan, model const& m) {
  if (plan.num_layers != m.num_layers()) return "the number of layers is wrong";
  if (auto s = column_fault(plan, m, &strata::layer_step::k, plan.k_slots); !s.empty())
    return "K: " + s;
  if (auto s = column_fault(plan, m, &strata::layer_step::v, plan.v_slots); !s.empty())
    return "V: " + s;
  for (std::int32_t l = plan.num_layers; l < strata::max_layers; ++l)
    if (!(plan.layers[l] == strata::layer_step{})) return "rows beyond the model are not empty";
  return plan.tail_begin == tail_by_trial(plan, m) ? "" : "tail_begin is wrong";
}

}  // namespace support
