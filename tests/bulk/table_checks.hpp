// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Row tables and the order by depth against loops, whatever the numbers in them say.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <strata/bulk/row_tables.hpp>

#include "row_checks.hpp"

namespace bulk_test {

/// Row tables of [num_layers, num_seqs], straight from the definition.
struct row_tables {
  std::vector<std::int32_t> read, write;
  friend bool operator==(row_tables const&, row_tables const&) = default;
};

struct table_input {
  std::int32_t num_plans = 0, num_layers = 0;
  std::vector<std::int32_t> read, write;  // [num_plans, num_layers]
  std::vector<bulk::sequence_rows> sequences;
  std::vector<std::int32_t> row_of_tensor, table;  // may be empty
};

inline std::int32_t row_by_loop(table_input const& in, bulk::sequence_rows const& sequence,
                                std::int32_t tensor) {
  if (tensor < 0) return -1;
  std::int64_t at = tensor;
  if (!in.row_of_tensor.empty()) {
    if (as_size(tensor) >= in.row_of_tensor.size()) return -1;
    at = in.row_of_tensor[as_size(tensor)];
  }
  at += sequence.first_row;
  if (in.table.empty()) return static_cast<std::int32_t>(at);
  return at < 0 || as_size(at) >= in.table.size() ? -1 : in.table[as_size(at)];
}

inline row_tables tables_by_loop(table_input const& in) {
  row_tables out;
  for (std::int32_t l = 0; l < in.num_layers; ++l)
    for (auto const& sequence : in.sequences) {
      bool const planned = sequence.plan >= 0 && sequence.plan < in.num_plans;
      auto const at = planned ? as_size(sequence.plan * in.num_layers + l) : 0;
      out.read.push_back(planned ? row_by_loop(in, sequence, in.read[at]) : -1);
      out.write.push_back(planned ? row_by_loop(in, sequence, in.write[at]) : -1);
    }
  return out;
}

/// What a system fills.
template <class System>
strata::result<row_tables> fill(System const& system, table_input const& in) {
  auto const read = system.upload(in.read), write = system.upload(in.write);
  auto const sequences = system.upload(in.sequences);
  auto const row_of_tensor = system.upload(in.row_of_tensor), table = system.upload(in.table);
  auto const cells = as_size(in.num_layers) * in.sequences.size();
  auto read_row = system.upload(std::vector<std::int32_t>(cells, -9));
  auto write_row = system.upload(std::vector<std::int32_t>(cells, -9));
  bulk::row_numbers numbers;
  if (!in.row_of_tensor.empty())
    numbers = {row_of_tensor.data(), static_cast<std::int32_t>(in.row_of_tensor.size())};
  if (!in.table.empty()) {
    numbers.table = table.data();
    numbers.table_size = static_cast<std::int64_t>(in.table.size());
  }
  auto const s =
      bulk::fill_row_tables(system.policy, {read.data(), write.data(), in.num_plans, in.num_layers},
                            {sequences.data(), in.sequences.size()}, numbers,
                            {read_row.data(), cells}, {write_row.data(), cells});
  if (!s.ok()) return s;
  return row_tables{read_row.get(), write_row.get()};
}

/// Numbers at random, of plans, tensors and rows that are there and that are not.
template <class System>
std::string check_row_tables(System const& system, std::uint64_t seed) {
  number_stream numbers(seed);
  table_input in;
  in.num_plans = numbers.below(4);
  in.num_layers = numbers.below(9);
  auto const sometimes = [&](std::int32_t count) {
    std::vector<std::int32_t> list(numbers.below(2) == 0 ? 0 : as_size(count));
    for (auto& x : list) x = numbers.below(100) - 1;
    return list;
  };
  for (auto* const table : {&in.read, &in.write})
    for (std::int32_t i = 0; i < in.num_plans * in.num_layers; ++i)
      table->push_back(numbers.below(10) - 1);
  auto const num_seqs = numbers.below(4) == 0 ? 700 : numbers.below(4);
  for (std::int32_t s = 0; s < num_seqs; ++s)
    in.sequences.push_back({numbers.below(6) - 1, numbers.below(50) - 2});
  in.row_of_tensor = sometimes(6);
  in.table = sometimes(40);
  auto const filled = fill(system, in);
  if (!filled.ok()) return describe(filled.state()).c_str();
  return *filled == tables_by_loop(in) ? "" : "other rows";
}

template <class System>
std::string check_order(System const& system, std::uint64_t seed) {
  number_stream numbers(seed);
  constexpr std::int32_t counts[] = {0, 1, 2, 50, 3000};
  constexpr std::int32_t ends[] = {INT32_MIN, INT32_MAX, -1};
  std::vector<std::int32_t> depths(as_size(counts[numbers.below(5)]));
  for (auto& d : depths) d = numbers.below(9) == 0 ? ends[numbers.below(3)] : numbers.below(6);
  std::vector<std::int32_t> expected(depths.size());
  std::iota(expected.begin(), expected.end(), 0);
  std::stable_sort(expected.begin(), expected.end(), [&](std::int32_t a, std::int32_t b) {
    return depths[as_size(a)] > depths[as_size(b)];
  });
  auto const device_depths = system.upload(depths);
  auto order = system.upload(std::vector<std::int32_t>(depths.size(), -9));
  auto const s = bulk::order_by_depth(system.policy, {device_depths.data(), depths.size()},
                                      {order.data(), depths.size()});
  if (!s.ok()) return describe(s).c_str();
  return order.get() == expected ? "" : "another order";
}

}  // namespace bulk_test
