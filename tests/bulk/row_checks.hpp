// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows that are gathered, scattered, compacted and selected, against loops. A check says what
// differs, or nothing. All bytes of a tensor are compared, those between and behind its rows too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <strata/bulk/compact.hpp>
#include <strata/bulk/gather.hpp>
#include <strata/bulk/select.hpp>

#include "support/exact_numbers.hpp"

namespace bulk_test {

namespace bulk = strata::bulk;
using support::number_stream;

/// Rows of a width, their stride, and how far the first is from the beginning of its memory.
struct row_shape {
  std::int64_t count, width, stride, offset;
};

inline std::size_t as_size(std::int64_t n) { return static_cast<std::size_t>(n); }

inline std::vector<std::byte> random_bytes(std::int64_t count, number_stream& numbers) {
  std::vector<std::byte> bytes(as_size(count));
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    auto const word = numbers.next();
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, bytes.size() - i));
  }
  return bytes;
}
inline std::vector<std::byte> random_rows(row_shape const& shape, number_stream& numbers) {
  return random_bytes(shape.offset + shape.count * shape.stride, numbers);
}

template <class Array>
bulk::writable_rows rows_in(Array& memory, row_shape const& shape) {
  return {memory.data() + shape.offset, shape.count, shape.width, shape.stride};
}

/// Row `to_row` of one tensor becomes row `from_row` of another.
inline void copy_row(std::vector<std::byte> const& from, row_shape const& from_shape,
                     std::int64_t from_row, std::vector<std::byte>& to, row_shape const& to_shape,
                     std::int64_t to_row) {
  auto const at = from.begin() + from_shape.offset + from_row * from_shape.stride;
  std::copy(at, at + from_shape.width, to.begin() + to_shape.offset + to_row * to_shape.stride);
}

/// Widths that are and are not multiples of pieces, more rows than a block of threads.
inline row_shape random_shape(number_stream& numbers) {
  constexpr std::int64_t counts[] = {0, 1, 2, 7, 33, 600};
  constexpr std::int64_t widths[] = {1, 3, 4, 12, 16, 48, 100, 256};
  constexpr std::int64_t gaps[] = {0, 0, 1, 4, 16};
  constexpr std::int64_t offsets[] = {0, 0, 1, 4, 16};
  auto const width = widths[numbers.below(8)];
  return {counts[numbers.below(6)], width, width + gaps[numbers.below(5)],
          offsets[numbers.below(5)]};
}

template <class Index, class System>
std::string check_gather(System const& system, std::uint64_t seed) {
  number_stream numbers(seed);
  auto const from_shape = random_shape(numbers);
  auto to_shape = random_shape(numbers);
  to_shape.width = from_shape.width;
  to_shape.stride += from_shape.width;
  auto const from = random_rows(from_shape, numbers);
  auto to = random_rows(to_shape, numbers);
  std::vector<Index> list;
  for (std::int64_t i = 0; i < to_shape.count; ++i)
    list.push_back(
        static_cast<Index>(numbers.below(static_cast<std::int32_t>(from_shape.count) + 1) - 1));

  auto device_from = system.upload(from);
  auto device_to = system.upload(to);
  auto const device_list = system.upload(list);
  auto const s = bulk::gather(system.policy, rows_in(device_from, from_shape), device_list,
                              rows_in(device_to, to_shape));
  for (std::size_t i = 0; i < list.size(); ++i)
    if (list[i] >= 0)
      copy_row(from, from_shape, list[i], to, to_shape, static_cast<std::int64_t>(i));
  if (!s.ok()) return describe(s).c_str();
  return device_to.get() == to ? "" : "gathered rows differ";
}

/// A permutation, of which some entries are no row.
template <class Index, class System>
std::string check_scatter(System const& system, std::uint64_t seed) {
  number_stream numbers(seed);
  auto const from_shape = random_shape(numbers);
  auto to_shape = random_shape(numbers);
  to_shape.width = from_shape.width;
  to_shape.stride += from_shape.width;
  auto const from = random_rows(from_shape, numbers);
  auto to = random_rows(to_shape, numbers);
  std::vector<Index> list;
  for (std::int64_t i = 0; i < to_shape.count; ++i)
    list.push_back(numbers.below(4) == 0 ? Index{-1} : static_cast<Index>(i));
  for (auto n = static_cast<std::int32_t>(list.size()); n > 1; --n)
    std::swap(list[as_size(n - 1)], list[as_size(numbers.below(n))]);
  list.resize(as_size(std::min(from_shape.count, to_shape.count)));

  auto device_from = system.upload(from);
  auto device_to = system.upload(to);
  auto const device_list = system.upload(list);
  auto const s = bulk::scatter(system.policy, rows_in(device_from, from_shape), device_list,
                               rows_in(device_to, to_shape));
  for (std::size_t i = 0; i < list.size(); ++i)
    if (list[i] >= 0)
      copy_row(from, from_shape, static_cast<std::int64_t>(i), to, to_shape, list[i]);
  if (!s.ok()) return describe(s).c_str();
  return device_to.get() == to ? "" : "scattered rows differ";
}

/// The numbers of the flags that are set.
template <class Index>
std::vector<Index> list_of(std::vector<std::uint8_t> const& flags) {
  std::vector<Index> list;
  for (std::size_t i = 0; i < flags.size(); ++i)
    if (flags[i] != 0) list.push_back(static_cast<Index>(i));
  return list;
}

/// Flags that are set never, sometimes or always.
inline std::vector<std::uint8_t> random_flags(std::int64_t count, number_stream& numbers) {
  auto const odds = numbers.below(5);
  std::vector<std::uint8_t> flags(as_size(count));
  for (auto& f : flags)
    f = numbers.below(4) < odds ? static_cast<std::uint8_t>(1 + numbers.below(255)) : 0;
  return flags;
}

/// By flags, and by a list of the same rows; in place, and into another tensor.
template <class System>
std::string check_compact(System const& system, row_shape const& shape,
                          std::vector<std::uint8_t> const& flags, std::uint64_t seed) {
  number_stream numbers(seed);
  auto const from = random_rows(shape, numbers);
  auto const list = list_of<std::int32_t>(flags);
  row_shape const to_shape{static_cast<std::int64_t>(list.size()) + numbers.below(3), shape.width,
                           shape.width + numbers.below(2), numbers.below(2)};
  auto const device_flags = system.upload(flags);
  auto const device_list = system.upload(list);
  for (bool const in_place : {true, false})
    for (bool const flagged : {true, false}) {
      auto const& result_shape = in_place ? shape : to_shape;
      auto expected = in_place ? from : random_rows(to_shape, numbers);
      auto device_from = system.upload(from);
      auto device_to = system.upload(expected);
      for (std::size_t i = 0; i < list.size(); ++i)
        copy_row(from, shape, list[i], expected, result_shape, static_cast<std::int64_t>(i));
      auto const read = rows_in(device_from, shape);
      auto const written = in_place ? read : rows_in(device_to, to_shape);
      auto const s = flagged ? bulk::compact(system.policy, read, device_flags, written)
                             : strata::result<std::int64_t>(static_cast<std::int64_t>(list.size()));
      auto const listed =
          flagged ? s.state() : bulk::compact_listed(system.policy, read, device_list, written);
      if (!listed.ok()) return describe(listed).c_str();
      if (*s != static_cast<std::int64_t>(list.size())) return "another length";
      if ((in_place ? device_from : device_to).get() != expected) return "compacted rows differ";
    }
  return "";
}

template <class System>
std::string check_compact(System const& system, std::uint64_t seed) {
  number_stream numbers(seed + 1000);
  auto const shape = random_shape(numbers);
  return check_compact(system, shape, random_flags(shape.count, numbers), seed);
}

/// Rows of 1 MiB, of which more stay than go through temporary memory at once.
template <class System>
std::string check_compact_of_much(System const& system) {
  std::vector<std::uint8_t> flags(40, 1);
  flags[0] = flags[5] = flags[6] = flags[35] = 0;
  return check_compact(system, {40, 1 << 20, 1 << 20, 0}, flags, 3);
}

template <class Index, class System>
std::string check_select(System const& system, std::uint64_t seed) {
  number_stream numbers(seed);
  constexpr std::int64_t counts[] = {0, 1, 2, 31, 257, 5000};
  auto const flags = random_flags(counts[numbers.below(6)], numbers);
  auto const expected = list_of<Index>(flags);
  auto device_list = system.upload(std::vector<Index>(flags.size()));
  auto const count = bulk::select(system.policy, system.upload(flags), device_list);
  if (!count.ok()) return describe(count.state()).c_str();
  auto list = device_list.get();
  list.resize(as_size(*count));
  return list == expected ? "" : "another selection";
}

/// Depths by value, and rows by sign.
template <class System>
std::string check_conditions(System const& system, std::uint64_t seed) {
  number_stream numbers(seed);
  std::vector<std::int32_t> values(300);
  for (auto& x : values) x = numbers.below(4) - 1;
  auto const device_values = system.upload(values);
  auto device_list = system.upload(std::vector<std::int32_t>(values.size()));
  auto const check = [&](auto const& condition) {
    std::vector<std::int32_t> expected;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (condition(values[i])) expected.push_back(static_cast<std::int32_t>(i));
    auto const count = bulk::select(system.policy, device_values, device_list, condition);
    auto list = device_list.get();
    if (count.ok()) list.resize(as_size(*count));
    return count.ok() && list == expected;
  };
  return check(bulk::equals{std::int32_t{2}}) && check(bulk::is_row{}) && check(bulk::is_set{})
             ? ""
             : "another selection";
}

}  // namespace bulk_test
