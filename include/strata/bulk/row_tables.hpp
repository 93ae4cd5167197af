// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The row tables of a batch of mixed depth, for all layers at once: which row of the blocks each
// sequence reads at each layer, and which it writes. What a step lays out on the host, for engines
// that keep sequences on the device. And the order of a batch in which whoever stores a layer
// stands together.
#pragma once

#include <cstdint>
#include <span>

#include <strata/bulk/detail/policy.hpp>
#include <strata/bulk/detail/sort.hpp>
#include <strata/bulk/rows.hpp>
#include <strata/config.hpp>
#include <strata/ids.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk {

/// How tensors of a plan are numbered: by the layer that stores them, or densely, by slot.
enum class tensors_by : std::int32_t { layer, slot };

/// K, or V, of all plans in use: which tensor a layer reads, and which it stores; -1 for none.
struct plan_tables {
  std::int32_t const* read = nullptr;   ///< [num_plans, num_layers]
  std::int32_t const* write = nullptr;  ///< [num_plans, num_layers]
  std::int32_t num_plans = 0;
  std::int32_t num_layers = 0;
};

/// Fills a plan's row of those tables, on the host. column: &layer_step::k, or ::v.
/// read, write: [num_layers].
constexpr status fill_plan_tables(route_plan const& plan, route layer_step::* column, tensors_by by,
                                  std::span<std::int32_t> read,
                                  std::span<std::int32_t> write) noexcept {
  for (auto const size : {detail::size_of(read), detail::size_of(write)})
    if (size < plan.num_layers) return {errc::value_too_small, no_layer, size, plan.num_layers};
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
    auto const& r = plan[l].*column;
    auto const at = static_cast<std::size_t>(l.index);
    read[at] = by == tensors_by::layer ? r.source.index : r.slot.index;
    write[at] = !r.stored ? -1 : by == tensors_by::layer ? l.index : r.own_slot.index;
  }
  return {};
}

/// A sequence of the batch. One without a plan, or without tokens yet, reads and writes no row.
struct sequence_rows {
  std::int32_t plan = -1;
  std::int64_t first_row = 0;
};

/// Which row of the blocks tensor t of a sequence is: first_row + t; or + row_of_tensor[t], where
/// that is given; or what `table` has there, where that is.
///
/// - paged_storage, tensors by layer: first_row is the sequence's id times the number of layers.
/// - borrowed_storage, by layer: first_row is the id, row_of_tensor has the layers' k_first_row.
/// - contiguous_storage, by layer: as paged, with a `table` of k_row(id, layer).
/// - Tensors that lie one behind the other, by slot: first_row is that of the sequence's first.
struct row_numbers {
  std::int32_t const* row_of_tensor = nullptr;  ///< [num_tensors]
  std::int32_t num_tensors = 0;
  std::int32_t const* table = nullptr;  ///< [table_size]
  std::int64_t table_size = 0;
};

namespace detail {

/// Cell i of [num_layers, num_seqs]. What lies outside of a table is no row.
struct fill_rows {
  plan_tables plans;
  sequence_rows const* sequences;
  std::int64_t num_seqs;
  row_numbers numbers;
  std::int32_t* read_row;
  std::int32_t* write_row;

  STRATA_HOST_DEVICE std::int32_t row(sequence_rows const& sequence,
                                      std::int32_t tensor_index) const noexcept {
    if (tensor_index < 0) return -1;
    auto at = sequence.first_row + tensor_index;
    if (numbers.row_of_tensor != nullptr) {
      if (tensor_index >= numbers.num_tensors) return -1;
      at = sequence.first_row + numbers.row_of_tensor[tensor_index];
    }
    if (numbers.table == nullptr) return static_cast<std::int32_t>(at);
    return at < 0 || at >= numbers.table_size ? -1 : numbers.table[at];
  }
  STRATA_HOST_DEVICE void operator()(std::int64_t i) const noexcept {
    auto const& sequence = sequences[i % num_seqs];
    bool const planned = sequence.plan >= 0 && sequence.plan < plans.num_plans;
    auto const at = std::int64_t{sequence.plan} * plans.num_layers + i / num_seqs;
    read_row[i] = planned ? row(sequence, plans.read[at]) : -1;
    write_row[i] = planned ? row(sequence, plans.write[at]) : -1;
  }
};

/// Deeper is less, so that it comes first.
struct depth_key {
  std::int32_t const* depths;
  std::uint64_t* keys;
  std::int32_t* order;

  STRATA_HOST_DEVICE void operator()(std::int64_t i) const noexcept {
    keys[i] = static_cast<std::uint64_t>(0x7FFFFFFF - std::int64_t{depths[i]});
    order[i] = static_cast<std::int32_t>(i);
  }
};

inline status check_tables(plan_tables const& plans, row_numbers const& numbers) noexcept {
  if (plans.num_plans < 0) return {errc::value_too_small, no_layer, plans.num_plans, 0};
  if (plans.num_layers < 0) return {errc::value_too_small, no_layer, plans.num_layers, 0};
  bool const empty = plans.num_plans == 0 || plans.num_layers == 0;
  if (!empty && (plans.read == nullptr || plans.write == nullptr))
    return null_pointer(tensor::row_table);
  if (numbers.num_tensors < 0) return {errc::value_too_small, no_layer, numbers.num_tensors, 0};
  if (numbers.table_size < 0) return {errc::value_too_small, no_layer, numbers.table_size, 0};
  return {};
}

}  // namespace detail

/// Fills both tables for all layers in one pass: K's, or V's. -1 is no row: of `read_row` where a
/// layer has no K/V, of `write_row` where the sequence's plan does not store it.
/// sequences: [num_seqs], which numbers in `plans` are the caller's to get right: others are no
/// plan.
/// read_row, write_row: [num_layers, num_seqs], those of a layer adjacent, as `row_of` of blocks.
template <class Policy>
status fill_row_tables(Policy const& policy, plan_tables const& plans,
                       std::span<sequence_rows const> sequences, row_numbers const& numbers,
                       std::span<std::int32_t> read_row,
                       std::span<std::int32_t> write_row) noexcept {
  if (auto const s = detail::check_tables(plans, numbers); !s.ok()) return s;
  if (auto const s = detail::check_span(sequences, tensor::row_values); !s.ok()) return s;
  auto const cells = checked_multiply(plans.num_layers, detail::size_of(sequences));
  if (!cells.ok()) return cells.state();
  for (auto const size : {detail::size_of(read_row), detail::size_of(write_row)})
    if (size < *cells) return {errc::value_too_small, no_layer, size, *cells};
  if (*cells > 0 && (read_row.data() == nullptr || write_row.data() == nullptr))
    return null_pointer(tensor::rows_written);
  return detail::guarded(0, [&]() -> status {
    detail::for_each_index(policy, *cells,
                           detail::fill_rows{plans, sequences.data(), detail::size_of(sequences),
                                             numbers, read_row.data(), write_row.data()});
    return {};
  });
}

/// The order of a batch's rows, or sequences, by depth: the deepest first, equal ones as they were.
/// Where the leaders of a shallower plan are among those of every deeper one, the rows that store a
/// layer are then the first ones, one range for its projection. order[i] is the row that comes to
/// place i: a list for `gather`, and for `scatter` on the way back. Needs temporary memory: 8 bytes
/// for each row, and what sorting takes.
/// depths: of each row, for instance its plan's k_slots. order: as many.
template <class Policy>
status order_by_depth(Policy const& policy, std::span<std::int32_t const> depths,
                      std::span<std::int32_t> order) noexcept {
  auto const count = detail::size_of(depths);
  constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
  if (auto const s = detail::check_span(depths, tensor::row_values); !s.ok()) return s;
  if (auto const s = detail::check_span(order, tensor::rows_written); !s.ok()) return s;
  if (count > most) return {errc::value_too_large, no_layer, count, most};
  if (detail::size_of(order) < count)
    return {errc::value_too_small, no_layer, detail::size_of(order), count};
  return detail::guarded(count * 8, [&]() -> status {
    detail::temporary<std::uint64_t, Policy> const keys(policy, count);
    detail::for_each_index(policy, count,
                           detail::depth_key{depths.data(), keys.data(), order.data()});
    detail::sort_by_key(policy, keys.data(), count, order.data());
    return {};
  });
}

}  // namespace bulk

STRATA_NAMESPACE_END
