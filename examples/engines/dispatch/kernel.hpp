// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An attention kernel whose code is chosen when the program starts: cpu::attention, compiled once
// for each processor that the program should run well on (unit.cpp), behind pointers for one type
// of queries and one of caches. It is a kernel like any other, and a stack does not see the
// difference; the call through a pointer costs a few nanoseconds of an attention call's many
// microseconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>

namespace dispatch {

using codec = strata::bf16_codec;
using rows = strata::query_rows<float>;
using view = strata::kv_view<codec>;

struct attention {
  using memory = std::span<std::byte>;

  char const* isa = "none";
  std::int64_t (*bytes_code)(rows const&, view const&, std::int32_t) noexcept = nullptr;
  strata::status (*partial_code)(strata::share, rows const&, view const&,
                                 memory) noexcept = nullptr;
  strata::status (*combine_code)(strata::share, rows const&, view const&,
                                 memory) noexcept = nullptr;

  std::int64_t workspace_bytes(rows const& q, view const& keys,
                               std::int32_t num_shares) const noexcept {
    return bytes_code(q, keys, num_shares);
  }
  strata::status partial(strata::share part, rows const& q, view const& keys,
                         memory workspace) const noexcept {
    return partial_code(part, q, keys, workspace);
  }
  strata::status combine(strata::share part, rows const& q, view const& keys,
                         memory workspace) const noexcept {
    return combine_code(part, q, keys, workspace);
  }
};
static_assert(strata::attention_kernel<attention, float, view>);

// One per unit.
extern attention const portable, avx2, avx512;

}  // namespace dispatch
