// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata's attention kernel of devices as a training machine's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include <strata/attention/kernel.hpp>
#include <strata/cuda/attention.cuh>

#include "cuda/machine.hpp"
#include "failure.hpp"

namespace lm::cuda {

/// A launch is one share's work, so there is one share.
template <class Kernel = strata::cuda::attention>
class library_attention {
 public:
  static constexpr bool trains = (strata::differentiable_kernel<Kernel, bfloat16, pass_view>);

  library_attention() {
    auto const made = strata::cuda::make_attention<Kernel>(nullptr);
    lm::require(made.state(), "attention on a device");
    kernel_ = *made;
  }

  std::int64_t workspace_bytes(pass_queries const& q, pass_view const& view) const noexcept {
    auto const forward = kernel_.workspace_bytes(q, view, 1);
    if constexpr (trains)
      return strata::detail::larger(forward, kernel_.backward_workspace_bytes(q, view, 1));
    else
      return forward;
  }
  strata::status forward(cudaStream_t stream, pass_queries const& q, pass_view const& view,
                         std::span<std::byte> workspace) const noexcept {
    auto const kernel = on(stream);
    if (auto const s = kernel.partial({0, 1}, q, view, workspace); !s.ok()) return s;
    return kernel.combine({0, 1}, q, view, workspace);
  }
  strata::status backward(cudaStream_t stream, pass_queries const& q, pass_view const& view,
                          bfloat16 const* d_out, bfloat16* d_q, strata::kv_grad<float> const& grad,
                          std::span<std::byte> workspace) const noexcept {
    if constexpr (trains)
      return on(stream).backward({0, 1}, q, view, d_out, d_q, grad, workspace);
    else
      return {strata::errc::unsupported};
  }

 private:
  Kernel on(cudaStream_t stream) const noexcept {
    auto kernel = kernel_;
    kernel.launcher.stream = stream;
    return kernel;
  }

  Kernel kernel_;
};

}  // namespace lm::cuda
