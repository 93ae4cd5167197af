// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The machine of cuda/machine.hpp that is a device: one stream, its products, and an attention.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "cuda/device_memory.cuh"
#include "cuda/launch.cuh"
#include "cuda/machine.hpp"
#include "cuda/products.cuh"

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

/// Outlives what was allocated on it.
template <enqueued_attention Attention>
class cuda_machine {
 public:
  explicit cuda_machine(Attention attention = {})
      : products_(stream_), attention_(std::move(attention)) {}

  device_stream const& stream() const noexcept { return stream_; }

  template <class T>
  device_buffer<T> allocate(std::int64_t count) {
    return device_buffer<T>(stream_, count);
  }
  template <class Body>
  void launch(Body const& body) {
    cuda::launch(stream_.get(), body);
  }
  template <class T>
  void upload(std::span<T const> from, T* to) {
    cuda::upload(stream_.get(), from, to);
  }
  template <class T>
  void download(T const* from, std::span<T> to) {
    cuda::download(stream_.get(), from, to);
  }
  template <class T>
  void fill_zero(T* to, std::int64_t count) {
    cuda::fill_zero(stream_.get(), to, count);
  }
  void wait() { stream_.wait(); }

  template <number Out>
  void linear(bfloat16 const* x, bfloat16 const* w, Out* y, std::int64_t rows, std::int64_t in,
              std::int64_t out, std::type_identity_t<Out> const* c = nullptr) {
    products_.linear(x, w, y, rows, in, out, c);
  }
  template <number Out>
  void input_gradient(bfloat16 const* dy, bfloat16 const* w, Out* dx, std::int64_t rows,
                      std::int64_t in, std::int64_t out, bool add = false) {
    products_.input_gradient(dy, w, dx, rows, in, out, add);
  }
  void weight_gradient(bfloat16 const* dy, bfloat16 const* x, float* dw, std::int64_t rows,
                       std::int64_t in, std::int64_t out) {
    products_.weight_gradient(dy, x, dw, rows, in, out);
  }

  strata::status reserve_attention(pass_queries const& q, pass_view const& view) {
    auto const bytes = attention_.workspace_bytes(q, view);
    if (bytes > workspace_.size()) workspace_ = device_buffer<std::byte>(stream_, bytes);
    return {};
  }
  strata::status attend_forward(pass_queries const& q, pass_view const& view) {
    return attention_.forward(stream_.get(), q, view, workspace());
  }
  strata::status attend_backward(pass_queries const& q, pass_view const& view,
                                 bfloat16 const* d_out, bfloat16* d_q,
                                 strata::kv_grad<float> const& grad) {
    return attention_.backward(stream_.get(), q, view, d_out, d_q, grad, workspace());
  }

 private:
  std::span<std::byte> workspace() const noexcept {
    return {workspace_.data(), static_cast<std::size_t>(workspace_.size())};
  }

  device_stream stream_;
  products products_;
  Attention attention_;
  device_buffer<std::byte> workspace_;
};

}  // namespace lm::cuda
