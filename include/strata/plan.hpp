// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The route plan: what a map or a drawn route means, written out as plain data. Whoever computes
// layers reads it; kernels never see it.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <type_traits>

#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/ids.hpp>
#include <strata/map/layer_map.hpp>
#include <strata/routing/sampler.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// The route of one layer's K, or of its V.
struct route {
  layer_id source = no_layer;  ///< whose tensor this layer reads; none without K/V
  slot_id slot = no_slot;      ///< where that tensor is: dense over the stored ones
  slot_id own_slot = no_slot;  ///< where this layer's own tensor is; none unless `stored`
  bool stored = false;         ///< this layer computes and keeps its own, because somebody reads it
  bool last_reader = false;  ///< no higher layer reads `source`: residency ends here, and backward
                             ///< starts the gradient sum here
  friend constexpr bool operator==(route const&, route const&) noexcept = default;
};

/// The routes of one layer. K and V may come from different layers.
struct layer_step {
  route k, v;
  friend constexpr bool operator==(layer_step const&, layer_step const&) noexcept = default;
};

/// One row per layer. Trivially copyable, no allocation, 8 KB.
struct route_plan {
  layer_step layers[max_layers] = {};
  std::int32_t num_layers = 0;
  std::int32_t k_slots = 0;  ///< stored K tensors
  std::int32_t v_slots = 0;  ///< stored V tensors
  /// From this layer on, queries (and all that follows in the layer) are needed only for the rows
  /// whose logits are wanted: nothing above it stores K/V or carries another state over tokens.
  std::int32_t tail_begin = 0;

  constexpr layer_step const& operator[](layer_id layer) const noexcept {
    return layers[layer.index];
  }
  friend constexpr bool operator==(route_plan const&, route_plan const&) noexcept = default;
};
static_assert(std::is_trivially_copyable_v<route_plan>);

namespace detail {

/// Completes one column (K or V) whose sources are set. Returns the number of stored tensors.
constexpr std::int32_t complete_routes(route_plan& plan, route layer_step::* column) noexcept {
  auto const at = [&](std::int32_t l) -> route& { return plan.layers[l].*column; };
  layer_id last_reader_of[max_layers] = {};
  for (std::int32_t l = 0; l < plan.num_layers; ++l) {
    if (!at(l).source.valid()) continue;
    at(at(l).source.index).stored = true;
    last_reader_of[at(l).source.index] = {l};
  }
  std::int32_t slots = 0;
  for (std::int32_t l = 0; l < plan.num_layers; ++l)
    if (at(l).stored) at(l).own_slot = {slots++};
  for (std::int32_t l = 0; l < plan.num_layers; ++l) {
    if (!at(l).source.valid()) continue;
    at(l).slot = at(at(l).source.index).own_slot;
    at(l).last_reader = last_reader_of[at(l).source.index] == layer_id{l};
  }
  return slots;
}

constexpr std::int32_t find_tail(route_plan const& plan, kv_classes const& classes) noexcept {
  for (layer_id l{plan.num_layers - 1}; l.valid(); --l.index) {
    if (plan[l].k.stored || plan[l].v.stored) return l.index;
    if (!classes[l].has_kv) return l.index + 1;  // linear attention: its state needs every token
  }
  return 0;
}

constexpr void complete_plan(route_plan& plan, kv_classes const& classes) noexcept {
  plan.k_slots = complete_routes(plan, &layer_step::k);
  plan.v_slots = complete_routes(plan, &layer_step::v);
  plan.tail_begin = find_tail(plan, classes);
}

}  // namespace detail

/// The plan of a map for K and another for V, for a model of the given classes. Refuses a map that
/// breaks law 1 or 3 and names the layer. O(num_layers). What is known at compile time is proven
/// there:
///
///     static_assert(strata::make_plan(map, model).state() == strata::status{});
template <layer_map KMap, layer_map VMap>
constexpr result<route_plan> make_plan(KMap const& k_map, VMap const& v_map,
                                       kv_classes const& classes) noexcept {
  if (auto const s = check(k_map, classes); !s.ok()) return s;
  if (auto const s = check(v_map, classes); !s.ok()) return s;
  route_plan plan;
  plan.num_layers = classes.num_layers();
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
    if (!classes[l].has_kv) continue;
    plan.layers[l.index].k.source = k_map.source(l);
    plan.layers[l.index].v.source = v_map.source(l);
  }
  detail::complete_plan(plan, classes);
  return plan;
}

/// The plan of a map: K and V from the same layer.
template <layer_map Map>
constexpr result<route_plan> make_plan(Map const& map, kv_classes const& classes) noexcept {
  return make_plan(map, map, classes);
}

/// The same for a model whose layers are all alike.
template <layer_map Map>
constexpr result<route_plan> make_plan(Map const& map) noexcept {
  return make_plan(map, map, kv_classes::uniform(map.num_layers()));
}

namespace detail {

template <class Sampler>
constexpr status check_sampler(Sampler const& sampler, kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  return check_parameters(sampler, classes);
}

/// The plan that `draw` answers: candidates -> {source of K, source of V}, asked once per layer.
template <class Draw>
constexpr result<route_plan> draw_plan(kv_classes const& classes, Draw const& draw) noexcept {
  route_plan plan;
  plan.num_layers = classes.num_layers();
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
    if (!classes[l].has_kv) continue;
    candidate_list const list(classes, l);
    layer_step const drawn = draw(list.get());
    for (auto const source : {drawn.k.source, drawn.v.source})
      if (!list.get().contains(source))
        return status{errc::illegal_draw, l, source.index, list.get().size()};
    plan.layers[l.index] = drawn;
  }
  complete_plan(plan, classes);
  return plan;
}

}  // namespace detail

/// Checks a sampler's own parameters against a model, as make_plan does before it draws. A type
/// that is a map as well is checked as a map.
template <routing_sampler Sampler>
  requires(!layer_map<Sampler>)
constexpr status check(Sampler const& sampler, kv_classes const& classes) noexcept {
  return detail::check_sampler(sampler, classes);
}

/// The plan of one drawn route: K and V from the same layer. Refuses a sampler that answers a layer
/// it was not offered. O(num_layers^2) comparisons, known before the pass starts.
template <routing_sampler Sampler>
constexpr result<route_plan> make_plan(Sampler const& sampler, kv_classes const& classes,
                                       draw_key const& key) noexcept {
  if (auto const s = detail::check_sampler(sampler, classes); !s.ok()) return s;
  return detail::draw_plan(classes, [&](candidates c) {
    auto const source = sampler(c, key);
    return layer_step{{source}, {source}};
  });
}

/// The same with a sampler for K and another for V. Both see the same key, so that equal samplers
/// draw equal routes.
template <routing_sampler KSampler, routing_sampler VSampler>
constexpr result<route_plan> make_plan(KSampler const& k_sampler, VSampler const& v_sampler,
                                       kv_classes const& classes, draw_key const& key) noexcept {
  if (auto const s = detail::check_sampler(k_sampler, classes); !s.ok()) return s;
  if (auto const s = detail::check_sampler(v_sampler, classes); !s.ok()) return s;
  return detail::draw_plan(
      classes, [&](candidates c) { return layer_step{{k_sampler(c, key)}, {v_sampler(c, key)}}; });
}

namespace detail {

template <class T>
inline constexpr bool is_result = false;
template <class T>
inline constexpr bool is_result<result<T>> = true;

/// Says what is wrong with an argument that no make_plan takes.
template <class Given, bool Drawn>
constexpr result<route_plan> explain() noexcept {
  constexpr bool is_text = std::is_convertible_v<Given const&, std::string_view>;
  static_assert(!is_result<Given>,
                "strata: make_plan was given a result, for instance parse_strategy's: check ok() "
                "and pass what it holds, *result");
  static_assert(!is_text,
                "strata: make_plan was given a string: *parse_strategy(text, model) is its map, "
                "*parse_routing(text, model) its sampler");
  if constexpr (is_result<Given> || is_text)
    return status{errc::unsupported};
  else if constexpr (Drawn)
    static_assert(routing_sampler<Given>,
                  "strata: make_plan with a draw_key needs a routing_sampler: trivially copyable, "
                  "with layer_id operator()(candidates, draw_key) const noexcept; a map trains as "
                  "fixed_route(map)");
  else
    static_assert(layer_map<Given>,
                  "strata: make_plan needs a layer_map: trivially copyable, with num_layers() and "
                  "source(layer_id), both const noexcept");
  return status{errc::unsupported};
}

}  // namespace detail

// What the overloads above do not take, one for each of them, so that the mistake has a sentence.
template <class Given>
  requires(!layer_map<Given>)
constexpr result<route_plan> make_plan(Given const&) noexcept {
  return detail::explain<Given, false>();
}
template <class Given>
  requires(!layer_map<Given>)
constexpr result<route_plan> make_plan(Given const&, kv_classes const&) noexcept {
  return detail::explain<Given, false>();
}
template <class KGiven, class VGiven>
  requires(!(layer_map<KGiven> && layer_map<VGiven>) &&
           !std::is_convertible_v<VGiven const&, kv_classes const&>)
constexpr result<route_plan> make_plan(KGiven const&, VGiven const&, kv_classes const&) noexcept {
  return detail::explain<std::conditional_t<layer_map<KGiven>, VGiven, KGiven>, false>();
}
template <class Given>
  requires(!routing_sampler<Given>)
constexpr result<route_plan> make_plan(Given const&, kv_classes const&, draw_key const&) noexcept {
  return detail::explain<Given, true>();
}
template <class KGiven, class VGiven>
  requires(!(routing_sampler<KGiven> && routing_sampler<VGiven>))
constexpr result<route_plan> make_plan(KGiven const&, VGiven const&, kv_classes const&,
                                       draw_key const&) noexcept {
  return detail::explain<std::conditional_t<routing_sampler<KGiven>, VGiven, KGiven>, true>();
}

/// Whether a plan, wherever it comes from, fits a model: every source may be read, and every other
/// field is what make_plan would write beside it; and when serving, whether keys were captured as
/// attention reads them. What whoever opens sequences asks. O(num_layers).
constexpr status check(route_plan const& plan, kv_classes const& classes, use purpose) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  if (plan.num_layers != classes.num_layers())
    return {errc::plan_mismatch, no_layer, plan.num_layers, classes.num_layers()};
  route_plan expected;
  expected.num_layers = plan.num_layers;
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
    for (auto const source : {plan[l].k.source, plan[l].v.source}) {
      if (!classes[l].has_kv && !source.valid()) continue;
      if (!source.valid() || source > l)
        return {errc::source_above_reader, l, source.index, l.index};
      if (auto const s = classes.readable(l, source, purpose); !s.ok()) return s;
    }
    bool const readable = classes[l].kv.capture == capture_stage::after_rope;
    if (purpose == use::serving && classes[l].has_kv && !readable)
      return {errc::capture_unsupported, l};
    expected.layers[l.index] = {{plan[l].k.source}, {plan[l].v.source}};
  }
  detail::complete_plan(expected, classes);
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
    if (!(plan[l] == expected[l])) return {errc::bad_plan, l, plan[l].k.source.index, 0};
  if (plan.k_slots != expected.k_slots || plan.v_slots != expected.v_slots ||
      plan.tail_begin != expected.tail_begin)
    return {errc::bad_plan, no_layer, plan.tail_begin, expected.tail_begin};
  return {};
}

STRATA_NAMESPACE_END
