// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Keeps some rows of a tensor, in order and without gaps, in place or in another: what eviction and
// cancelled sequences leave of positions, hidden states or a dense cache. Tokens in the blocks of a
// cache: compact_tokens.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include <thrust/find.h>
#include <thrust/iterator/counting_iterator.h>

#include <strata/bulk/detail/copy.hpp>
#include <strata/bulk/detail/policy.hpp>
#include <strata/bulk/gather.hpp>
#include <strata/bulk/rows.hpp>
#include <strata/bulk/select.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk {

namespace detail {

/// Whether entry i of a list does not come after the one before it.
template <class Index>
struct descends {
  Index const* list;
  STRATA_HOST_DEVICE bool operator()(std::int64_t i) const noexcept {
    return list[i] < 0 || (i > 0 && list[i] <= list[i - 1]);
  }
};

/// Throws. Of a system of the host: what a list says is looked at.
template <class Policy, class Index>
status check_ascending(Policy const& policy, Index const* list, std::int64_t count) {
  auto const first = ::thrust::counting_iterator<std::int64_t>(0);
  auto const at = ::thrust::find_if(policy, first, first + count, descends<Index>{list}) - first;
  if (at == count) return {};
  return {errc::list_not_ascending, no_layer, list[at], at > 0 ? list[at - 1] : -1};
}

/// Throws. Row i of `to` becomes row list[i] of `from`. In place they go through temporary memory,
/// some at a time: the list ascends, so that no row is written before it is read.
template <class Policy, class Index>
void move_rows(Policy const& policy, byte_rows const& from, Index const* list, std::int64_t count,
               writable_rows const& to) {
  using listed = listed_place<std::byte const, Index>;
  auto const width = from.width;
  auto const alignment = alignment_of(from) | alignment_of(to);
  if (from.data != to.data) {
    copy_units(policy, count, width, alignment, listed{from.data, from.count, from.stride, list},
               row_place<std::byte>{to.data, to.stride});
    return;
  }
  if (count == 0 || width == 0) return;
  auto const step = rows_at_once(count, width);
  temporary_bytes<Policy> const held(policy, step * width);
  for (std::int64_t first = 0; first < count; first += step) {
    auto const rows = strata::detail::smaller(step, count - first);
    copy_units(policy, rows, width, alignment,
               listed{from.data, from.count, from.stride, list, first},
               row_place<std::byte>{held.data(), width});
    copy_units(policy, rows, width, alignment, row_place<std::byte const>{held.data(), width},
               row_place<std::byte>{to.data, to.stride, first});
  }
}

/// Both are usable, and they are the same rows or have no byte in common.
inline status check_compact(byte_rows const& from, byte_rows const& to) noexcept {
  if (auto const s = check(from, to); !s.ok()) return s;
  bool const in_place = from.data == to.data && from.stride == to.stride;
  if (!in_place && overlap(from, to)) return {errc::rows_overlap};
  return {};
}

}  // namespace detail

/// Row i of `to` becomes row list[i] of `from`, for all of an ascending list; the new length is
/// that of the list. In place where both are the same rows; else they have no byte in common. Needs
/// temporary memory in place: 32 MiB, or what all rows take if that is less.
/// to: at least as many rows as the list has numbers; those behind them stay as they are.
template <class Policy, row_list List>
status compact_listed(Policy const& policy, byte_rows const& from, List const& list,
                      writable_rows const& to) noexcept {
  auto const count = detail::size_of(list);
  if (auto const s = detail::check_compact(from, to); !s.ok()) return s;
  if (auto const s = detail::check_span(list, tensor::row_list); !s.ok()) return s;
  if (to.count < count) return {errc::value_too_small, no_layer, to.count, count};
  if constexpr (detail::host_policy<Policy>)
    if (auto const s = check_list(policy, list, from.count); !s.ok()) return s;
  auto const bytes = detail::rows_at_once(count, from.width) * from.width;
  return detail::guarded(bytes, [&]() -> status {
    if constexpr (detail::host_policy<Policy>)
      if (auto const s = detail::check_ascending(policy, list.data(), count); !s.ok()) return s;
    detail::move_rows(policy, from, list.data(), count, to);
    return {};
  });
}

/// The same for the rows whose value `condition` holds for, by default those whose flag is set.
/// Returns the new length, and waits for the policy's device to know it. Needs temporary memory for
/// a list of the rows besides.
/// values: a std::span or std::vector, one value for each row of `from`.
template <class Policy, class Values, class Condition = is_set>
result<std::int64_t> compact(Policy const& policy, byte_rows const& from, Values const& values,
                             writable_rows const& to, Condition const& condition = {}) noexcept {
  if (auto const s = detail::check_compact(from, to); !s.ok()) return s;
  if (auto const s = detail::check_span(values, tensor::row_values); !s.ok()) return s;
  if (detail::size_of(values) != from.count)
    return status{errc::value_out_of_range, no_layer, detail::size_of(values), from.count};
  std::int64_t kept = 0;
  auto const s = detail::guarded(from.count * 8 + from.width, [&]() -> status {
    detail::temporary<std::int64_t, Policy> const list(policy, from.count);
    kept = detail::select_rows(policy, values.data(), from.count, condition, list.data());
    if (to.count < kept) return {errc::value_too_small, no_layer, to.count, kept};
    detail::move_rows(policy, from, list.data(), kept, to);
    return {};
  });
  if (!s.ok()) return s;
  return kept;
}

}  // namespace bulk

STRATA_NAMESPACE_END
