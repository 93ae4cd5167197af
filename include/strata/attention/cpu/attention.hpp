// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention on the CPU, as fast as we know how.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/cpu/forward_call.hpp>
#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {

struct attention {
  /// Never less for a larger call of the same kind: one buffer for the largest serves all.
  template <query_element T, class View>
  std::int64_t workspace_bytes(query_rows<T> const& q, View const& view,
                               std::int32_t num_shares) const noexcept {
    return detail::forward_bytes<true>(q, view, num_shares);
  }
  template <std::floating_point T, class View>
  std::int64_t backward_workspace_bytes(query_rows<T> const& q, View const& view,
                                        std::int32_t num_shares) const noexcept {
    return blocked_attention{}.backward_workspace_bytes(q, view, num_shares);
  }

  template <query_element T, class View>
  status partial(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    return detail::forward_partial<true>(part, q, view, workspace);
  }
  template <query_element T, class View>
  status combine(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    return detail::forward_combine<true>(part, q, view, workspace);
  }

  template <std::floating_point T, class View>
  status backward(share part, query_rows<T> const& q, View const& view, T const* d_out, T* d_q,
                  kv_grad<accum_t<T>> const& grad, std::span<std::byte> workspace) const noexcept {
    return blocked_attention{}.backward(part, q, view, d_out, d_q, grad, workspace);
  }
};

}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
