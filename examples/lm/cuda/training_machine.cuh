// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A device that trains: gradients of products, and an attention with a backward call.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "cuda/cuda_machine.cuh"

namespace lm::cuda {

/// Attention that enqueues: `workspace_bytes` suffices for both calls of a shape, and all pointers
/// are the device's. q has no offsets, and no positions: rows end where the keys end.
template <class A>
concept enqueued_attention =
    requires(A const& attention, cudaStream_t stream, pass_queries const& q, pass_view const& view,
             bfloat16 const* d_out, bfloat16* d_q, strata::kv_grad<float> const& grad,
             std::span<std::byte> workspace) {
      { attention.workspace_bytes(q, view) } -> std::same_as<std::int64_t>;
      { attention.forward(stream, q, view, workspace) } -> std::same_as<strata::status>;
      {
        attention.backward(stream, q, view, d_out, d_q, grad, workspace)
      } -> std::same_as<strata::status>;
    };

template <enqueued_attention Attention>
class cuda_training_machine : public cuda_machine {
 public:
  explicit cuda_training_machine(Attention attention = {}) : attention_(std::move(attention)) {}

  template <number Out>
  void input_gradient(bfloat16 const* dy, bfloat16 const* w, Out* dx, std::int64_t rows,
                      std::int64_t in, std::int64_t out, bool add = false) {
    products().input_gradient(dy, w, dx, rows, in, out, add);
  }
  void weight_gradient(bfloat16 const* dy, bfloat16 const* x, float* dw, std::int64_t rows,
                       std::int64_t in, std::int64_t out) {
    products().weight_gradient(dy, x, dw, rows, in, out);
  }

  strata::status reserve_attention(pass_queries const& q, pass_view const& view) {
    auto const bytes = attention_.workspace_bytes(q, view);
    if (bytes > workspace_.size()) workspace_ = device_buffer<std::byte>(stream(), bytes);
    return {};
  }
  strata::status attend_forward(pass_queries const& q, pass_view const& view) {
    return attention_.forward(stream().get(), q, view, workspace());
  }
  strata::status attend_backward(pass_queries const& q, pass_view const& view,
                                 bfloat16 const* d_out, bfloat16* d_q,
                                 strata::kv_grad<float> const& grad) {
    return attention_.backward(stream().get(), q, view, d_out, d_q, grad, workspace());
  }

 private:
  std::span<std::byte> workspace() const noexcept {
    return {workspace_.data(), static_cast<std::size_t>(workspace_.size())};
  }

  Attention attention_;
  device_buffer<std::byte> workspace_;
};

}  // namespace lm::cuda
