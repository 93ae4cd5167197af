// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The search behind map/planner.hpp.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <tuple>
#include <utility>

#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/geometry.hpp>
#include <strata/map/layer_mask.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// The layers up to some point, decided.
struct search_state {
  layer_mask leaders;
  std::int16_t last[kv_classes::max_kinds] = {};  // the last leader of each kind of layer, or -1
  std::int32_t tail_begin = 0;                    // layers that all tokens go through
  std::int64_t bytes = 0;
  std::int64_t stage_bytes = 0;  // of the stage at hand
  std::int64_t distance = 0;     // the sum over layers
  double sensitivity = 0;
  double cost = 0;         // of these, so that what is equal costs the same to the last bit
  std::int64_t order = 0;  // decides between equals
};

class leader_search {
 public:
  static constexpr std::int64_t unlimited = (std::numeric_limits<std::int64_t>::max)();

  std::int64_t budget = unlimited;
  std::span<std::int64_t const> stage_budgets = {};
  double distance_weight = 0, prefill_weight = 0, sensitivity_weight = 0;

  leader_search(kv_classes const& classes, std::span<std::int64_t const> layer_bytes,
                std::span<double const> sensitivity) noexcept
      : classes_(classes), layer_bytes_(layer_bytes), sensitivity_(sensitivity) {}

  layer_mask const& best() const noexcept { return states_[0].leaders; }
  bool exact() const noexcept { return exact_; }

  /// Refuses what is not a question, and takes the memory for an answer.
  status check(std::int32_t width) noexcept {
    if (auto const s = check_numbers(); !s.ok()) return s;
    if (width < 1) return {errc::value_too_small, no_layer, width, 1};
    for (auto const weight : {distance_weight, prefill_weight, sensitivity_weight})
      if (!(weight >= 0 && weight < 1e300)) return {errc::bad_weight};
    for (layer_id l{0}; classes_.num_layers() > l.index; ++l.index) {
      if (auto const s = check_stage(l); !s.ok()) return s;
      with_kv_ += classes_[l].has_kv;
    }
    width_ = width;
    if (auto const s = states_.grow(2 * std::int64_t{width}); !s.ok()) return s;
    return next_.grow(2 * std::int64_t{width});
  }

  /// Refuses numbers of layers that are not as many as there are layers, or none.
  status check_numbers() const noexcept {
    auto const layers = std::int64_t{classes_.num_layers()};
    auto const bytes = static_cast<std::int64_t>(layer_bytes_.size());
    auto const given = static_cast<std::int64_t>(sensitivity_.size());
    if (bytes != layers) return {errc::layer_count_mismatch, no_layer, bytes, layers};
    if (given != 0 && given != layers) return {errc::layer_count_mismatch, no_layer, given, layers};
    std::int64_t sum = 0;
    for (layer_id l{0}; layers > l.index; ++l.index) {
      auto const at = static_cast<std::size_t>(l.index);
      if (given > 0 && !(sensitivity_[at] >= 0 && sensitivity_[at] < 1e300))
        return {errc::bad_weight, l};
      if (layer_bytes_[at] < 0 || __builtin_add_overflow(sum, layer_bytes_[at], &sum))
        return {errc::size_overflow, l, layer_bytes_[at], 1};
    }
    return {};
  }

  status run() noexcept {
    states_[0] = {};
    for (auto& last : states_[0].last) last = -1;
    num_states_ = 1;
    for (layer_id l{0}; classes_.num_layers() > l.index; ++l.index) {
      num_next_ = 0;
      for (std::int64_t i = 0; i < num_states_; ++i) extend(states_[i], l);
      if (num_next_ == 0) return refusal();
      std::swap(states_, next_);
      num_states_ = num_next_;
      prune();
    }
    std::sort(states_.data(), states_.data() + num_states_, [](auto const& a, auto const& b) {
      return std::tuple(a.cost, a.bytes, a.tail_begin, a.order) <
             std::tuple(b.cost, b.bytes, b.tail_begin, b.order);
    });
    return {};
  }

 private:
  std::int64_t stage_budget(layer_id l) const noexcept {
    return stage_budgets.empty() ? unlimited
                                 : stage_budgets[static_cast<std::size_t>(classes_[l].stage)];
  }
  /// With budgets of their own, stages are numbered from 0 on, and each is one run of layers.
  status check_stage(layer_id l) const noexcept {
    if (stage_budgets.empty()) return {};
    auto const stage = classes_[l].stage;
    auto const count = static_cast<std::int64_t>(stage_budgets.size());
    if (stage < 0 || stage >= count) return {errc::value_out_of_range, l, stage, count - 1};
    if (l.index > 0 && stage < classes_[{l.index - 1}].stage)
      return {errc::stage_mismatch, l, l.index - 1, 0};
    return {};
  }

  /// The nearest leader that a layer may read, of those before it; -1: there is none.
  std::int32_t nearest(search_state const& s, layer_id l) const noexcept {
    std::int32_t found = -1;
    for (std::int32_t kind = 0; kind < classes_.num_kinds(); ++kind) {
      layer_id const leader{s.last[kind]};
      if (leader.index <= found) continue;
      if (classes_.readable(l, leader, use::serving).ok()) found = leader.index;
    }
    return found;
  }

  /// The beginnings that come of one, with a layer more.
  void extend(search_state const& from, layer_id l) noexcept {
    auto s = from;
    if (l.index > 0 && classes_[l].stage != classes_[{l.index - 1}].stage) s.stage_bytes = 0;
    auto const at = static_cast<std::size_t>(l.index);
    if (!classes_[l].has_kv) {
      s.tail_begin = l.index + 1;  // its state needs every token
      add(s);
      return;
    }
    if (auto const source = nearest(s, l); source >= 0) {
      auto follows = s;
      follows.distance += l.index - source;
      if (!sensitivity_.empty()) follows.sensitivity += sensitivity_[at];
      add(follows);
    }
    s.bytes += layer_bytes_[at];
    s.stage_bytes += layer_bytes_[at];
    if (s.bytes > budget || s.stage_bytes > stage_budget(l)) return;
    s.tail_begin = l.index;  // of a leader every token's K and V alone
    s.leaders.insert(l);
    s.last[classes_.kind_of(l)] = static_cast<std::int16_t>(l.index);
    add(s);
  }
  void add(search_state s) noexcept {
    auto const layers = static_cast<double>(classes_.num_layers());
    s.cost = distance_weight * static_cast<double>(s.distance) / (layers * with_kv_) +
             prefill_weight * s.tail_begin / layers + sensitivity_weight * s.sensitivity;
    if (with_kv_ == 0) s.cost = prefill_weight * s.tail_begin / layers;
    s.order = num_next_;
    next_[num_next_++] = s;
  }

  static bool same_leaders(search_state const& a, search_state const& b) noexcept {
    return a.tail_begin == b.tail_begin &&
           std::equal(std::begin(a.last), std::end(a.last), std::begin(b.last));
  }

  /// Drops beginnings that another is as good as in every way, then all beyond the width.
  void prune() noexcept {
    auto* const begin = states_.data();
    std::sort(begin, begin + num_states_, [](auto const& a, auto const& b) {
      if (a.tail_begin != b.tail_begin) return a.tail_begin < b.tail_begin;
      auto const order = std::lexicographical_compare_three_way(
          std::begin(a.last), std::end(a.last), std::begin(b.last), std::end(b.last));
      if (order != 0) return order < 0;
      return std::tuple(a.bytes, a.cost, a.order) < std::tuple(b.bytes, b.cost, b.order);
    });
    std::int64_t kept = 0, group = 0;
    for (std::int64_t i = 0; i < num_states_; ++i) {
      auto const s = states_[i];
      if (kept > 0 && !same_leaders(states_[kept - 1], s)) group = kept;
      bool dominated = false;
      for (auto other = group; other < kept && !dominated; ++other)
        dominated = states_[other].cost <= s.cost && states_[other].stage_bytes <= s.stage_bytes;
      if (!dominated) states_[kept++] = s;
    }
    num_states_ = kept;
    if (num_states_ <= width_) return;
    exact_ = false;
    // The smallest stays: whatever the budget, where any choice fits it is a beginning of one.
    std::iter_swap(begin, std::min_element(begin, begin + num_states_,
                                           [](auto& a, auto& b) { return a.bytes < b.bytes; }));
    std::nth_element(begin + 1, begin + width_, begin + num_states_,
                     [](auto const& a, auto const& b) {
                       return std::pair(a.cost, a.order) < std::pair(b.cost, b.order);
                     });
    num_states_ = width_;
  }

  /// How many bytes the smallest choice takes: each layer follows where it can. (A layer that can
  /// serves nobody whom its source could not serve: `readable` is transitive.) Of one stage, where it
  /// is that which has too little.
  status refusal() const noexcept {
    search_state s;
    for (auto& last : s.last) last = -1;
    for (layer_id l{0}; classes_.num_layers() > l.index; ++l.index) {
      if (l.index > 0 && classes_[l].stage != classes_[{l.index - 1}].stage) s.stage_bytes = 0;
      if (!classes_[l].has_kv || nearest(s, l) >= 0) continue;
      s.bytes += layer_bytes_[static_cast<std::size_t>(l.index)];
      s.stage_bytes += layer_bytes_[static_cast<std::size_t>(l.index)];
      s.last[classes_.kind_of(l)] = static_cast<std::int16_t>(l.index);
      if (s.stage_bytes > stage_budget(l))
        return {errc::budget_too_small, l, s.stage_bytes, stage_budget(l)};
    }
    return {errc::budget_too_small, no_layer, s.bytes, budget};
  }

  kv_classes const& classes_;
  std::span<std::int64_t const> layer_bytes_;
  std::span<double const> sensitivity_;
  array<search_state> states_, next_;  // [2 width]
  std::int64_t num_states_ = 0, num_next_ = 0;
  std::int32_t width_ = 0, with_kv_ = 0;
  bool exact_ = true;
};

}  // namespace detail

STRATA_NAMESPACE_END
