// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where the rows of some tokens lie.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// at[i] = where head `head` of token first + i lies in a row, for `count` tokens, block by block.
inline void point_rows(tensor_blocks const& blocks, std::int64_t row, std::int32_t head,
                       std::int32_t first, std::int32_t count, std::byte const** at) noexcept {
  for (std::int32_t i = 0; i < count;) {
    auto const* const begin = blocks.at(row, head, first + i);
    auto const run = smaller(blocks.block_size - (first + i) % blocks.block_size, count - i);
    for (std::int32_t j = 0; j < run; ++j) at[i + j] = begin + j * blocks.stride.token;
    i += run;
  }
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
