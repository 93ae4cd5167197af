// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernels and nothing else, as an engine would compile them once per instruction set.
#include <cstddef>
#include <span>

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/cpu/blocked.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>

namespace {

template <class Kernel, class T, class View>
strata::status forward(strata::share s, strata::query_rows<T> const& q, View const& view,
                       std::span<std::byte> workspace) {
  Kernel const kernel;
  if (static_cast<std::int64_t>(workspace.size()) < kernel.workspace_bytes(q, view, s.nth))
    return {};
  if (auto const r = kernel.partial(s, q, view, workspace); !r.ok()) return r;
  return kernel.combine(s, q, view, workspace);
}
template <class Kernel, class T, class View>
strata::status backward(strata::share s, strata::query_rows<T> const& q, View const& view,
                        T const* d_out, T* d_q, strata::kv_grad<strata::accum_t<T>> const& grad,
                        std::span<std::byte> workspace) {
  Kernel const kernel;
  auto const bytes = kernel.backward_workspace_bytes(q, view, s.nth);
  if (static_cast<std::int64_t>(workspace.size()) < bytes) return {};
  return kernel.backward(s, q, view, d_out, d_q, grad, workspace);
}

/// All calls of a kernel for queries of T.
template <class Kernel, class T, class K, class V = K>
struct calls {
  using view = strata::kv_view<K, V>;
  decltype(&forward<Kernel, T, view>) ahead = &forward<Kernel, T, view>;
  decltype(&backward<Kernel, T, view>) back = &backward<Kernel, T, view>;
};
template <class Kernel, strata::half_element T, class K, class V>
struct calls<Kernel, T, K, V> {
  using view = strata::kv_view<K, V>;
  decltype(&forward<Kernel, T, view>) ahead = &forward<Kernel, T, view>;
};

// Of cpu::attention, too: what it does not stream is what blocked_attention does.
using strata::bf16_codec, strata::f16_codec, strata::f32_codec, strata::f64_codec;
using strata::bfloat16, strata::float16, strata::fp8_codec, strata::int8_codec, strata::q8_0_codec;
using strata::cpu::attention, strata::cpu::blocked_attention;

[[gnu::used]] calls<blocked_attention, double, f64_codec> volatile in_double;
[[gnu::used]] calls<blocked_attention, float, f16_codec> volatile blocked;
[[gnu::used]] calls<attention, float, f32_codec> volatile in_float;
[[gnu::used]] calls<attention, float, bf16_codec, f16_codec> volatile from_both;
[[gnu::used]] calls<attention, float, fp8_codec> volatile from_fp8;
[[gnu::used]] calls<attention, bfloat16, bf16_codec, q8_0_codec> volatile in_bfloat16;
[[gnu::used]] calls<attention, float16, f16_codec, int8_codec> volatile in_float16;

}  // namespace
