// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which layers should keep K and V, when memory is short: the leaders that fit a budget and cost
// least, by what a user says that cost is.
//
//     std::int64_t bytes[max_layers];
//     layer_cache_bytes<bf16_codec>(classes, context, batch, bytes);
//     auto const choice = choose_leaders(classes, bytes, {.budget = 2LL << 30});
//     auto const plan = make_plan(choice->map, classes);
//
// Layers are decided from the bottom up. Of two beginnings that leave the same leaders to be read,
// one that needs as many bytes and costs as much is dropped, which loses nothing; only where more
// than `width` remain are the dearest dropped, too, and then the choice says that it is not exact.
// With one KV class and equal bytes there are never more than num_layers^2: the choice is the best
// there is.
//
// Threads: each call has memory of its own; any number at the same time.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <strata/cache/footprint.hpp>
#include <strata/config.hpp>
#include <strata/detail/leader_search.hpp>
#include <strata/geometry.hpp>
#include <strata/map/layer_mask.hpp>
#include <strata/map/strategy.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// What is asked of a choice of leaders. Its cost is the weighted sum of
///
/// - distance: how many layers lie between a layer and its source, as a part of all layers, the mean
///   over layers with K/V (0: all lead). R-CLA trains for any distance; short ones lose least.
/// - prefill: the part of the layers that every token of a prompt must go through, those below
///   `route_plan::tail_begin`. The others run for the last token only.
/// - sensitivity: the sum of what it costs that a layer does not lead, measured or guessed.
struct planner_goals {
  std::int64_t budget = unlimited;                   ///< bytes of K and V, all stages
  std::span<std::int64_t const> stage_budgets = {};  ///< [pipeline stages], or none
  double distance_weight = 1;
  double prefill_weight = 0;
  double sensitivity_weight = 1;
  std::span<double const> sensitivity = {};  ///< [num_layers], at least 0, or none
  std::int32_t width = 8192;                 ///< beginnings that are followed, 400 bytes each

  static constexpr std::int64_t unlimited = detail::leader_search::unlimited;
};

/// Leaders, and what they were chosen by.
struct leader_choice {
  layer_mask leaders;
  table_map map;  ///< every other layer reads the nearest leader that it may read
  std::int64_t bytes = 0;
  double cost = 0;
  double distance = 0, prefill = 0, sensitivity = 0;  ///< not weighted
  bool exact = true;                                  ///< no choice that fits costs less
};

/// Bytes of K and V of every layer if it leads: of a window no more tokens than that.
/// bytes: [num_layers]. 0 for layers without K/V. Refuses sizes beyond 64 bits.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
constexpr status layer_cache_bytes(kv_classes const& classes, std::int32_t context,
                                   std::int32_t batch, std::span<std::int64_t> bytes) noexcept {
  auto const layers = classes.num_layers();
  if (std::cmp_less(bytes.size(), layers))
    return {errc::layer_count_mismatch, no_layer, static_cast<std::int64_t>(bytes.size()), layers};
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto const& kind = classes[l];
    auto& to = bytes[static_cast<std::size_t>(l.index)];
    to = 0;
    if (!kind.has_kv) continue;
    auto const tokens = std::int64_t{detail::smaller(context, kind.window)} * batch;
    auto const size = checked_multiply(tokens, k_bytes<KCodec>(kind.kv) + v_bytes<VCodec>(kind.kv));
    if (!size.ok()) return size.state();
    to = *size;
  }
  return {};
}

/// What a set of leaders costs, whether or not it fits. Refuses a set under which a layer has none
/// to read.
inline result<leader_choice> weigh_leaders(layer_mask const& leaders, kv_classes const& classes,
                                           std::span<std::int64_t const> layer_bytes,
                                           planner_goals const& goals) noexcept {
  auto const map = nearest_leader_map(leaders, classes);
  if (!map.ok()) return map.state();
  auto const plan = make_plan(*map, classes);
  if (!plan.ok()) return plan.state();
  detail::leader_search const question(classes, layer_bytes, goals.sensitivity);
  if (auto const s = question.check_numbers(); !s.ok()) return s;
  leader_choice choice{leaders, *map, 0, 0, 0, 0, 0, false};
  auto const layers = classes.num_layers();
  std::int64_t distance = 0;
  std::int32_t with_kv = 0;
  for (layer_id l{0}; layers > l.index; ++l.index) {
    if (!classes[l].has_kv) continue;
    auto const at = static_cast<std::size_t>(l.index);
    ++with_kv;
    distance += l.index - map->source(l).index;
    if (map->source(l) == l)
      choice.bytes += layer_bytes[at];
    else if (!goals.sensitivity.empty())
      choice.sensitivity += goals.sensitivity[at];
  }
  if (with_kv > 0) choice.distance = static_cast<double>(distance) / (double{1} * with_kv * layers);
  choice.prefill = static_cast<double>(plan->tail_begin) / layers;
  choice.cost = goals.distance_weight * choice.distance + goals.prefill_weight * choice.prefill +
                goals.sensitivity_weight * choice.sensitivity;
  return choice;
}

namespace detail {

/// Whether leaders keep to all budgets.
inline bool fits(leader_choice const& choice, kv_classes const& classes,
                 std::span<std::int64_t const> layer_bytes, planner_goals const& goals) noexcept {
  if (choice.bytes > goals.budget) return false;
  for (std::size_t stage = 0; stage < goals.stage_budgets.size(); ++stage) {
    auto rest = goals.stage_budgets[stage];
    for (layer_id l{0}; classes.num_layers() > l.index; ++l.index)
      if (std::cmp_equal(classes[l].stage, stage) && choice.leaders.contains(l))
        rest -= layer_bytes[static_cast<std::size_t>(l.index)];
    if (rest < 0) return false;
  }
  return true;
}

}  // namespace detail

/// The leaders of least cost that fit; of equals those of fewest bytes. Refuses a budget that the
/// smallest choice exceeds, and says how many bytes that needs. layer_bytes: [num_layers].
inline result<leader_choice> choose_leaders(kv_classes const& classes,
                                            std::span<std::int64_t const> layer_bytes,
                                            planner_goals const& goals) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  detail::leader_search search(classes, layer_bytes, goals.sensitivity);
  search.budget = goals.budget;
  search.stage_budgets = goals.stage_budgets;
  search.distance_weight = goals.distance_weight;
  search.prefill_weight = goals.prefill_weight;
  search.sensitivity_weight = goals.sensitivity_weight;
  if (auto const s = search.check(goals.width); !s.ok()) return s;
  if (auto const s = search.run(); !s.ok()) return s;
  auto choice = weigh_leaders(search.best(), classes, layer_bytes, goals);
  if (choice.ok()) choice->exact = search.exact();
  return choice;
}

/// The same by a score of the user's own: score(leader_choice) -> double, less is better, for
/// instance a loss that is measured. Begins with what `choose_leaders` finds and, one or two leaders
/// at a time, changes what improves it most, until nothing does: some num_layers^2 / 2 scores a
/// round. Never exact.
template <class Score>
  requires requires(Score& score, leader_choice const& choice) {
    { score(choice) } -> std::convertible_to<double>;
  }
result<leader_choice> choose_leaders(kv_classes const& classes,
                                     std::span<std::int64_t const> layer_bytes,
                                     planner_goals const& goals, Score&& score,
                                     std::int32_t max_rounds = 64) {
  auto best = choose_leaders(classes, layer_bytes, goals);
  if (!best.ok()) return best;
  best->cost = score(*best);
  best->exact = false;
  auto const layers = classes.num_layers();
  for (std::int32_t round = 0; round < max_rounds; ++round) {
    auto const from = best->leaders;
    bool improved = false;
    // j == layers: one leader more or fewer; else one for another.
    for (layer_id i{0}; layers > i.index; ++i.index)
      for (layer_id j{i.index + 1}; layers >= j.index; ++j.index) {
        if (layers > j.index && from.contains(i) == from.contains(j)) continue;
        auto leaders = from;
        leaders.toggle(i);
        if (layers > j.index) leaders.toggle(j);
        auto choice = weigh_leaders(leaders, classes, layer_bytes, goals);
        if (!choice.ok() || !detail::fits(*choice, classes, layer_bytes, goals)) continue;
        choice->cost = score(*choice);
        if (!(choice->cost < best->cost)) continue;
        best = choice;
        improved = true;
      }
    if (!improved) break;
  }
  return best;
}

STRATA_NAMESPACE_END
