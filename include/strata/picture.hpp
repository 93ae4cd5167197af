// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <string>

#include <strata/config.hpp>
#include <strata/plan.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

inline std::string padded(std::int32_t number, std::size_t width) {
  auto digits = std::to_string(number);
  return std::string(width > digits.size() ? width - digits.size() : 0, ' ') + digits;
}

/// One line: a label, then a cell per layer; a dot where the cell would be negative.
template <class Cell>
std::string picture_line(std::string label, std::int32_t num_layers, Cell const& cell) {
  label.resize(10, ' ');
  for (layer_id l{0}; num_layers > l.index; ++l.index) {
    auto const number = cell(l);
    label += number < 0 ? std::string("   .") : padded(number, 4);
  }
  return label + '\n';
}

}  // namespace detail

/// A plan as text. One pair of lines for K and V, or a pair each where they differ:
///
///     layer        0   1   2   3   4
///     reads        0   0   2   2   2
///     slot         0   .   1   .   .
///     2 of 5 layers store K, 2 store V; the tail begins at layer 2
inline std::string picture(route_plan const& plan) {
  auto const lines = [&](std::string const& prefix, route layer_step::* column) {
    auto const reads = [&](layer_id l) { return (plan[l].*column).source.index; };
    auto const slot = [&](layer_id l) { return (plan[l].*column).own_slot.index; };
    return detail::picture_line(prefix + "reads", plan.num_layers, reads) +
           detail::picture_line(prefix + "slot", plan.num_layers, slot);
  };
  bool same = true;
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) same &= plan[l].k == plan[l].v;
  auto text = detail::picture_line("layer", plan.num_layers, [](layer_id l) { return l.index; });
  text +=
      same ? lines("", &layer_step::k) : lines("K ", &layer_step::k) + lines("V ", &layer_step::v);
  auto const count = [](std::int32_t n) { return std::to_string(n); };
  return text + count(plan.k_slots) + " of " + count(plan.num_layers) + " layers store K, " +
         count(plan.v_slots) + " store V; the tail begins at layer " + count(plan.tail_begin) +
         '\n';
}

STRATA_NAMESPACE_END
