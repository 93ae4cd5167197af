// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The attention kernel: how cached K/V are read. It sees queries and a view; never a map, a sampler
// or a storage.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <strata/attention/query.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/executor.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// What a workspace loses at most until a cache line starts.
inline constexpr std::int64_t workspace_slack = 63;

/// Where the first cache line of a workspace starts, the same for every share and phase.
inline std::byte* workspace_start(std::span<std::byte> workspace) noexcept {
  auto const address = reinterpret_cast<std::uintptr_t>(workspace.data());
  return workspace.data() + (64 - address % 64) % 64;
}

/// A kernel for queries of T over a View. The caller runs `partial` for every share, waits for all,
/// then runs `combine` for every share. Both refuse the same calls, a share that is none (`check`)
/// among them, before they write anything.
/// Nothing is allocated: `workspace_bytes(q, view, nth)` says how much memory the caller brings for
/// a call split into nth shares. It may start anywhere, as a vector of bytes does: a kernel that
/// wants it aligned asks for `workspace_slack` bytes more and starts at `workspace_start`.
template <class K, class T, class View>
concept attention_kernel =
    std::is_trivially_copyable_v<K> && requires(K const kernel, share s, query_rows<T> const& q,
                                                View const& view, std::span<std::byte> workspace) {
      { kernel.workspace_bytes(q, view, s.nth) } noexcept -> std::same_as<std::int64_t>;
      { kernel.partial(s, q, view, workspace) } noexcept -> std::same_as<status>;
      { kernel.combine(s, q, view, workspace) } noexcept -> std::same_as<status>;
    };

/// A kernel that also computes gradients, from nothing but Q, K, V, O and LSE: q.out and q.lse hold
/// what forward wrote. Gradients: d_out [rows, q_heads, v_dim], d_q [rows, q_heads, k_dim], and dK,
/// dV of the source. The caller owns all tensors. One barrier-free phase; shares write disjoint
/// memory.
template <class K, class T, class View>
concept differentiable_kernel =
    attention_kernel<K, T, View> &&
    requires(K const kernel, share s, query_rows<T> const& q, View const& view, T const* d_out,
             T* d_q, kv_grad<accum_t<T>> const& grad, std::span<std::byte> workspace) {
      { kernel.backward_workspace_bytes(q, view, s.nth) } noexcept -> std::same_as<std::int64_t>;
      { kernel.backward(s, q, view, d_out, d_q, grad, workspace) } noexcept -> std::same_as<status>;
    };

/// One whole attention call: partial, barrier, combine.
template <executor Exec, class Kernel, class T, class View>
  requires attention_kernel<Kernel, T, View>
status attend(Exec& exec, Kernel const& kernel, query_rows<T> const& q, View const& view,
              std::span<std::byte> workspace = {}) noexcept {
  auto const partial = [&](share s) noexcept { return kernel.partial(s, q, view, workspace); };
  auto const combine = [&](share s) noexcept { return kernel.combine(s, q, view, workspace); };
  if (auto const s = exec.run(partial); !s.ok()) return s;
  return exec.run(combine);
}

namespace detail {

/// Always inlined, as `check` is.
[[gnu::always_inline]] inline status check_workspace(std::span<std::byte> workspace,
                                                     std::int64_t needed) noexcept {
  auto const given = static_cast<std::int64_t>(workspace.size());
  if (given < needed) return {errc::workspace_too_small, no_layer, given, needed};
  return {};
}

/// `attend`, for classes with a member of that name.
template <class Exec, class Kernel, class T, class View>
status attend_all(Exec& exec, Kernel const& kernel, query_rows<T> const& q, View const& view,
                  std::span<std::byte> workspace) noexcept {
  return attend(exec, kernel, q, view, workspace);
}

/// Query rows without their offsets and positions; `window` narrows the rule's.
template <class T>
query_rows<T> whole_rows(layer_queries<T> const& queries, std::int32_t window) noexcept {
  query_rows<T> q;
  q.q = queries.q;
  q.out = queries.out;
  q.lse = queries.lse;
  q.q_heads = queries.q_heads;
  q.key_begin = queries.key_begin;
  q.key_end = queries.key_end;
  q.rule = queries.rule;
  q.rule.window = smaller(q.rule.window, window);
  return q;
}

}  // namespace detail

/// One whole backward call.
template <executor Exec, class Kernel, class T, class View>
  requires differentiable_kernel<Kernel, T, View>
status attend_backward(Exec& exec, Kernel const& kernel, query_rows<T> const& q, View const& view,
                       T const* d_out, T* d_q, kv_grad<accum_t<T>> const& grad,
                       std::span<std::byte> workspace = {}) noexcept {
  return exec.run(
      [&](share s) noexcept { return kernel.backward(s, q, view, d_out, d_q, grad, workspace); });
}

STRATA_NAMESPACE_END
