// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The one sort of bulk/: 32-bit numbers by 64-bit keys. One because an nvcc compiles each for long.
#pragma once

#include <cstdint>

#include <thrust/sort.h>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk::detail {

/// Ascending, and stable: equal keys keep their order, on every system. Throws.
template <class Policy>
void sort_by_key(Policy const& policy, std::uint64_t* keys, std::int64_t count,
                 std::int32_t* values) {
  if (count > 1) ::thrust::stable_sort_by_key(policy, keys, keys + count, values);
}

}  // namespace bulk::detail

STRATA_NAMESPACE_END
