// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: the fourth policy must be an attention_kernel that reads the codecs
#include <strata/strata.hpp>

/// Reads float and nothing else.
struct float_attention {
  using view = strata::kv_view<strata::f32_codec>;
  strata::reference_attention all;

  std::int64_t workspace_bytes(strata::query_rows<float> const& q, view const& v,
                               std::int32_t nth) const noexcept {
    return all.workspace_bytes(q, v, nth);
  }
  std::int64_t backward_workspace_bytes(strata::query_rows<float> const& q, view const& v,
                                        std::int32_t nth) const noexcept {
    return all.backward_workspace_bytes(q, v, nth);
  }
  strata::status partial(strata::share s, strata::query_rows<float> const& q, view const& v,
                         std::span<std::byte> workspace) const noexcept {
    return all.partial(s, q, v, workspace);
  }
  strata::status combine(strata::share s, strata::query_rows<float> const& q, view const& v,
                         std::span<std::byte> workspace) const noexcept {
    return all.combine(s, q, v, workspace);
  }
  strata::status backward(strata::share s, strata::query_rows<float> const& q, view const& v,
                          float const* d_out, float* d_q, strata::kv_grad<float> const& grad,
                          std::span<std::byte> workspace) const noexcept {
    return all.backward(s, q, v, d_out, d_q, grad, workspace);
  }
};

#ifdef STRATA_SHOULD_FAIL
using codec = strata::f16_codec;
#else
using codec = strata::f32_codec;
#endif

template struct strata::model_policy<strata::random_previous<>, strata::grouped_map<4, 2>,
                                     strata::contiguous_storage<codec>, float_attention>;
