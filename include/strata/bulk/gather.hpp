// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of a tensor by a list: into a dense tensor, and back to where they came from. Bytes are
// moved, never converted: on a device 16 at a time where all widths, strides and addresses are
// multiples of that, else 4, else one.
#pragma once

#include <cstddef>
#include <cstdint>

#include <thrust/reduce.h>

#include <strata/bulk/detail/copy.hpp>
#include <strata/bulk/detail/policy.hpp>
#include <strata/bulk/rows.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk {

namespace detail {

template <class Index>
struct larger_of {
  STRATA_HOST_DEVICE Index operator()(Index a, Index b) const noexcept {
    return strata::detail::larger(a, b);
  }
};

}  // namespace detail

/// Refuses a list with a number that none of `count` rows has; negative ones stand for no row.
/// Waits for the policy's device to have looked. Needs temporary memory.
template <class Policy, row_list List>
status check_list(Policy const& policy, List const& list, std::int64_t count) noexcept {
  using index = detail::index_of<List>;
  if (auto const s = detail::check_span(list, tensor::row_list); !s.ok()) return s;
  return detail::guarded(detail::size_of(list), [&]() -> status {
    index const* const first = list.data();
    std::int64_t const greatest = ::thrust::reduce(policy, first, first + detail::size_of(list),
                                                   index{-1}, detail::larger_of<index>{});
    if (greatest >= count) return {errc::value_out_of_range, no_layer, greatest, count};
    return {};
  });
}

/// Row i of `to` becomes row list[i] of `from`; where that is none, it stays as it is.
/// from: any rows. to: at least as many as the list has numbers; overlaps `from` nowhere.
template <class Policy, row_list List>
status gather(Policy const& policy, byte_rows const& from, List const& list,
              writable_rows const& to) noexcept {
  auto const count = detail::size_of(list);
  if (auto const s = detail::check(from, to); !s.ok()) return s;
  if (auto const s = detail::check_span(list, tensor::row_list); !s.ok()) return s;
  if (to.count < count) return {errc::value_too_small, no_layer, to.count, count};
  if (detail::overlap(from, to)) return {errc::rows_overlap};
  if constexpr (detail::host_policy<Policy>)
    if (auto const s = check_list(policy, list, from.count); !s.ok()) return s;
  return detail::guarded(0, [&]() -> status {
    using place = detail::listed_place<std::byte const, detail::index_of<List>>;
    detail::copy_units(policy, count, from.width,
                       detail::alignment_of(from) | detail::alignment_of(to),
                       place{from.data, from.count, from.stride, list.data()},
                       detail::row_place<std::byte>{to.data, to.stride});
    return {};
  });
}

/// Row list[i] of `to` becomes row i of `from`; where that is none, nothing is written. Rows that
/// no number names stay as they are. That no number occurs twice is the caller's to see to.
/// from: at least as many rows as the list has numbers. to: any; overlaps `from` nowhere.
template <class Policy, row_list List>
status scatter(Policy const& policy, byte_rows const& from, List const& list,
               writable_rows const& to) noexcept {
  auto const count = detail::size_of(list);
  if (auto const s = detail::check(from, to); !s.ok()) return s;
  if (auto const s = detail::check_span(list, tensor::row_list); !s.ok()) return s;
  if (from.count < count) return {errc::value_too_small, no_layer, from.count, count};
  if (detail::overlap(from, to)) return {errc::rows_overlap};
  if constexpr (detail::host_policy<Policy>)
    if (auto const s = check_list(policy, list, to.count); !s.ok()) return s;
  return detail::guarded(0, [&]() -> status {
    using place = detail::listed_place<std::byte, detail::index_of<List>>;
    detail::copy_units(policy, count, from.width,
                       detail::alignment_of(from) | detail::alignment_of(to),
                       detail::row_place<std::byte const>{from.data, from.stride},
                       place{to.data, to.count, to.stride, list.data()});
    return {};
  });
}

}  // namespace bulk

STRATA_NAMESPACE_END
