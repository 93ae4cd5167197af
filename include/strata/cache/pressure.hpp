// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// When blocks are missing: sequences give up depth, one rung of a ladder of plans at a time, instead
// of being dropped or computed again. Which of them, a policy says.
//
//     // full, half, quarter: each stores no layer that the one before does not
//     route_plan const ladder[] = {full, half, quarter};
//     auto& storage = stack.between_steps();
//     auto const missing = storage.missing_blocks(growths);  // of the step that is to come
//     auto const evicted = index.evict(storage, missing->k, missing->v);  // what nobody uses, first
//     auto const still = storage.missing_blocks(growths);
//     if (auto const freed = relieve(storage, ladder, running, *still, shrink_longest{}); !freed.ok())
//       ...  // no sequence has depth to give: one goes to host memory (host_tier.hpp) and waits
//     auto step = stack.begin(batch);
//
// *Approximate*, as `shrink` is (law 12 of strata.hpp): what a sequence says after that is what a
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
  std::int32_t length = 0;  ///< tokens
  std::int32_t rung = 0;    ///< of the ladder where it stands; 0: the deepest cache
  pool_blocks freed;        ///< by the next rung: blocks that nobody else holds, one at least
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

/// The one that frees most: few sequences lose depth, long ones first.
struct shrink_longest {
  constexpr std::size_t operator()(std::span<shrink_candidate const> candidates) const noexcept {
    return detail::first_by(candidates, [](auto const& a, auto const& b) {
      auto const blocks = [](auto const& c) { return std::int64_t{c.freed.k} + c.freed.v; };
      return blocks(a) > blocks(b);
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

/// Whether a sequence has a rung below it that frees anything, and which candidate it then is.
template <class Storage>
bool find_rung(Storage& storage, std::span<route_plan const> ladder, sequence_id id,
               shrink_candidate& to) noexcept {
  auto const& plan = storage.plan(id);
  auto const rung = rung_of(plan, ladder);
  if (rung < 0 || static_cast<std::size_t>(rung) + 1 == ladder.size()) return false;
  auto const& next = ladder[static_cast<std::size_t>(rung) + 1];
  // A sequence whose plan is none of the ladder's may lack layers of the next rung.
  if (stores_more(next, plan).valid()) return false;
  to = {id, storage.length(id), rung, storage.freed_by_shrink(id, next)};
  return to.freed.k > 0 || to.freed.v > 0;
}

}  // namespace detail

/// Shrinks sequences until so many blocks of K and of V became free, or none can shrink any more to
/// any use: then what was freed stays so, and the status says what is missing. Returns the blocks
/// that became free. Refuses a ladder whose plans are not the model's, or no subsets of those
/// before, and sequences that are not open, before anything changes. What a policy names that is no
/// candidate is refused when it does: what it shrank before stays so. Sequences whose blocks are held
/// by others as well, by forks or an index, are left as they are: they would lose depth and free
/// nothing.
///
/// sequences: those that may shrink, up to 1024 of them; an engine leaves out those that must not.
/// Looks at each of them for every shrink, and at their blocks where any are shared. Threads: alone
/// with its storage.
template <class Storage, pressure_policy Policy>
result<pool_blocks> relieve(Storage& storage, std::span<route_plan const> ladder,
                            std::span<sequence_id const> sequences, pool_blocks missing,
                            Policy const& policy) noexcept {
  constexpr std::size_t most = 1024;
  if (sequences.size() > most)
    return status{errc::value_too_large, no_layer, static_cast<std::int64_t>(sequences.size()),
                  static_cast<std::int64_t>(most)};
  for (auto const& plan : ladder)
    if (auto const s = check(plan, storage.classes(), use::serving); !s.ok()) return s;
  for (std::size_t r = 1; r < ladder.size(); ++r)
    if (auto const l = detail::stores_more(ladder[r], ladder[r - 1]); l.valid())
      return status{errc::not_a_subset, l};
  for (auto const id : sequences)
    if (auto const s = storage.check_idle(id); !s.ok()) return s;

  auto const k_before = storage.free_k_blocks(), v_before = storage.free_v_blocks();
  auto const freed = [&]() -> pool_blocks {
    return {storage.free_k_blocks() - k_before, storage.free_v_blocks() - v_before};
  };
  shrink_candidate candidates[most];
  while (freed().k < missing.k || freed().v < missing.v) {
    std::size_t count = 0;
    for (auto const id : sequences)
      count += detail::find_rung(storage, ladder, id, candidates[count]);
    if (count == 0) break;
    auto const chosen = policy(std::span<shrink_candidate const>(candidates, count));
    if (chosen >= count)
      return status{errc::value_too_large, no_layer, static_cast<std::int64_t>(chosen),
                    static_cast<std::int64_t>(count) - 1};
    auto const& c = candidates[chosen];
    auto const shrunk = storage.shrink(c.sequence, ladder[static_cast<std::size_t>(c.rung) + 1]);
    if (!shrunk.ok()) return shrunk.state();
  }
  auto const now = freed();
  if (now.k < missing.k)
    return status{errc::out_of_k_blocks, no_layer, missing.k - now.k, storage.free_k_blocks()};
  if (now.v < missing.v)
    return status{errc::out_of_v_blocks, no_layer, missing.v - now.v, storage.free_v_blocks()};
  return now;
}

STRATA_NAMESPACE_END
