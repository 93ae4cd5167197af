// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// When blocks are missing: sequences give up depth, one rung of a ladder of plans at a time, instead
// of being dropped or computed again. Which of them, a policy says.
//
//     // full, half, quarter: each stores no layer that the one before does not
//     route_plan const ladder[] = {full, half, quarter};
//     auto step = stack.begin(batch);
//     if (step.state().code == errc::out_of_k_blocks || step.state().code == errc::out_of_v_blocks) {
//       auto const freed = relieve(stack.storage(), ladder, running, missing, shrink_longest{});
//       // then begin again
//     }
//
// *Approximate*, as `shrink` is (law 12 of the design): what a sequence says after that is what a
// model trained with routing says of mixed caches.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// A sequence that could give up depth.
struct shrink_candidate {
  sequence_id sequence;
  std::int32_t length = 0;   ///< tokens
  std::int32_t rung = 0;     ///< of the ladder where it stands; 0: the deepest cache
  std::int64_t k_slots = 0;  ///< stored K tensors that the next rung gives up
  std::int64_t v_slots = 0;
};

/// Chooses among candidates, of which there is at least one: the index of the sequence that goes one
/// rung down. Pure: the same candidates, the same answer.
template <class P>
concept pressure_policy = requires(P const& policy, std::span<shrink_candidate const> candidates) {
  { policy(candidates) } noexcept -> std::same_as<std::size_t>;
};

namespace detail {

/// The first of those that no other comes before.
template <class Before>
constexpr std::size_t first_by(std::span<shrink_candidate const> all,
                               Before const& before) noexcept {
  std::size_t first = 0;
  for (std::size_t i = 1; i < all.size(); ++i)
    if (before(all[i], all[first])) first = i;
  return first;
}

}  // namespace detail

/// The one that frees most: fewest sequences lose depth, the longest ones first.
struct shrink_longest {
  constexpr std::size_t operator()(std::span<shrink_candidate const> candidates) const noexcept {
    return detail::first_by(candidates, [](auto const& a, auto const& b) {
      return a.length * (a.k_slots + a.v_slots) > b.length * (b.k_slots + b.v_slots);
    });
  }
};

/// The one with the deepest cache, of equals the longest: all lose as many rungs, within one.
struct shrink_evenly {
  constexpr std::size_t operator()(std::span<shrink_candidate const> candidates) const noexcept {
    return detail::first_by(candidates, [](auto const& a, auto const& b) {
      return a.rung != b.rung ? a.rung < b.rung : a.length > b.length;
    });
  }
};

namespace detail {

/// Whether a plan stores a layer that another does not.
constexpr layer_id stores_more(route_plan const& plan, route_plan const& than) noexcept {
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index)
    if ((plan[l].k.stored && !than[l].k.stored) || (plan[l].v.stored && !than[l].v.stored))
      return l;
  return no_layer;
}

/// The lowest rung that stores all that a plan does; -1: none does.
inline std::int32_t rung_of(route_plan const& plan, std::span<route_plan const> ladder) noexcept {
  for (auto r = static_cast<std::int32_t>(ladder.size()) - 1; r >= 0; --r)
    if (!stores_more(plan, ladder[static_cast<std::size_t>(r)]).valid()) return r;
  return -1;
}

}  // namespace detail

/// Shrinks sequences until `wanted` blocks of K and of V are free, or none of them can shrink any
/// more: then what was freed stays so, and the status says what is missing. Returns the blocks that
/// became free. Refuses a ladder whose plans are no subsets of those before, and sequences that are
/// not open, before anything changes. At most one shrink for each sequence and rung.
///
/// sequences: those that may shrink, up to 1024 of them; an engine leaves out those that must not.
template <class Storage, pressure_policy Policy>
result<pool_blocks> relieve(Storage& storage, std::span<route_plan const> ladder,
                            std::span<sequence_id const> sequences, pool_blocks wanted,
                            Policy const& policy) noexcept {
  constexpr std::size_t most = 1024;
  if (sequences.size() > most)
    return status{errc::value_too_large, no_layer, static_cast<std::int64_t>(sequences.size()),
                  static_cast<std::int64_t>(most)};
  for (std::size_t r = 1; r < ladder.size(); ++r)
    if (auto const l = detail::stores_more(ladder[r], ladder[r - 1]); l.valid())
      return status{errc::not_a_subset, l};
  for (auto const id : sequences)
    if (auto const s = storage.check_idle(id); !s.ok()) return s;

  auto const k_before = storage.free_k_blocks(), v_before = storage.free_v_blocks();
  shrink_candidate candidates[most];
  while (storage.free_k_blocks() < wanted.k || storage.free_v_blocks() < wanted.v) {
    std::size_t count = 0;
    for (auto const id : sequences) {
      auto const& plan = storage.plan(id);
      auto const rung = detail::rung_of(plan, ladder);
      if (rung < 0 || static_cast<std::size_t>(rung) + 1 == ladder.size()) continue;
      auto const& next = ladder[static_cast<std::size_t>(rung) + 1];
      // A sequence whose plan is none of the ladder's may have less than its rung, even less than
      // the next one in parts: it has nothing to give up that way.
      if (detail::stores_more(next, plan).valid() || storage.length(id) == 0) continue;
      candidates[count++] = {id, storage.length(id), rung, plan.k_slots - next.k_slots,
                             plan.v_slots - next.v_slots};
    }
    if (count == 0) break;
    auto const chosen = policy(std::span(candidates).first(count));
    if (chosen >= count)
      return status{errc::value_too_large, no_layer, static_cast<std::int64_t>(chosen),
                    static_cast<std::int64_t>(count) - 1};
    auto const& c = candidates[chosen];
    auto const shrunk = storage.shrink(c.sequence, ladder[static_cast<std::size_t>(c.rung) + 1]);
    if (!shrunk.ok()) return shrunk.state();
  }
  auto const k_free = storage.free_k_blocks(), v_free = storage.free_v_blocks();
  if (k_free < wanted.k) return status{errc::out_of_k_blocks, no_layer, wanted.k - k_free, k_free};
  if (v_free < wanted.v) return status{errc::out_of_v_blocks, no_layer, wanted.v - v_free, v_free};
  return pool_blocks{k_free - k_before, v_free - v_before};
}

STRATA_NAMESPACE_END
