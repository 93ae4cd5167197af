// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which rows: the numbers of those that a condition holds for, ascending.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>

#include <thrust/copy.h>
#include <thrust/iterator/counting_iterator.h>

#include <strata/bulk/detail/policy.hpp>
#include <strata/bulk/rows.hpp>
#include <strata/config.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk {

// Conditions on the value that stands for a row. One of the caller's own is a type like these,
// which runs where the policy does.

/// A flag is set.
struct is_set {
  template <class T>
  STRATA_HOST_DEVICE bool operator()(T value) const noexcept {
    return value != T{};
  }
};

/// A number is a certain one: a depth, a plan, a class.
template <class T>
struct equals {
  T wanted{};
  STRATA_HOST_DEVICE bool operator()(T value) const noexcept { return value == wanted; }
};
template <class T>
equals(T) -> equals<T>;

/// There is a row: of a layer's write_row, the sequences whose plan stores it.
struct is_row {
  template <class T>
  STRATA_HOST_DEVICE bool operator()(T value) const noexcept {
    return value >= T{0};
  }
};

namespace detail {

/// Throws. out: room for `count` numbers.
template <class Policy, class T, class Condition, class Index>
std::int64_t select_rows(Policy const& policy, T const* values, std::int64_t count,
                         Condition const& condition, Index* out) {
  auto const rows = ::thrust::counting_iterator<Index>(0);
  return ::thrust::copy_if(policy, rows, rows + static_cast<Index>(count), values, out, condition) -
         out;
}

}  // namespace detail

/// Writes to `out` the numbers of the values that `condition` holds for, ascending, and returns how
/// many they are; waits for the policy's device to know. Needs temporary memory.
/// values: a std::span or std::vector, one value for each row. out: of 32 or 64 bit numbers, room
/// for as many; what lies behind those that are written is unspecified.
template <class Policy, class Values, row_list List, class Condition = is_set>
result<std::int64_t> select(Policy const& policy, Values const& values, List&& out,
                            Condition const& condition = {}) noexcept {
  using index = detail::index_of<List>;
  auto const count = detail::size_of(values);
  if (auto const s = detail::check_span(values, tensor::row_values); !s.ok()) return s;
  if (auto const s = detail::check_span(out, tensor::row_list); !s.ok()) return s;
  if (detail::size_of(out) < count)
    return status{errc::value_too_small, no_layer, detail::size_of(out), count};
  if (!std::in_range<index>(count))
    return status{errc::value_too_large, no_layer, count, (std::numeric_limits<index>::max)()};
  std::int64_t selected = 0;
  auto const s = detail::guarded(count * static_cast<std::int64_t>(sizeof(index)), [&]() -> status {
    selected = detail::select_rows(policy, values.data(), count, condition, out.data());
    return {};
  });
  if (!s.ok()) return s;
  return selected;
}

}  // namespace bulk

STRATA_NAMESPACE_END
