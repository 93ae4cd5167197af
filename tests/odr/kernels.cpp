// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernels and nothing else, as an engine would compile them once per instruction set.
#include <cstddef>
#include <span>

#include <strata/attention/cpu/blocked.hpp>

namespace {

template <class T, class View>
strata::status all_calls(strata::share s, strata::query_rows<T> const& q, View const& view,
                         T const* d_out, T* d_q, strata::kv_grad<strata::accum_t<T>> const& grad,
                         std::span<std::byte> workspace) {
  strata::cpu::blocked_attention const kernel;
  auto const bytes =
      kernel.workspace_bytes(q, view, s.nth) + kernel.backward_workspace_bytes(q, view, s.nth);
  if (static_cast<std::int64_t>(workspace.size()) < bytes) return {};
  if (auto const r = kernel.partial(s, q, view, workspace); !r.ok()) return r;
  if (auto const r = kernel.combine(s, q, view, workspace); !r.ok()) return r;
  return kernel.backward(s, q, view, d_out, d_q, grad, workspace);
}

template <class K, class V = K>
using view = strata::kv_view<K, V>;

[[gnu::used]] auto* volatile in_double = &all_calls<double, view<strata::f64_codec>>;
[[gnu::used]] auto* volatile in_float = &all_calls<float, view<strata::f32_codec>>;
[[gnu::used]] auto* volatile from_f16 = &all_calls<float, view<strata::f16_codec>>;
[[gnu::used]] auto* volatile from_both =
    &all_calls<float, view<strata::bf16_codec, strata::f16_codec>>;

}  // namespace
