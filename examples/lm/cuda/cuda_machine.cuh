// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The machine of cuda/machine.hpp that is a device: one stream and its products.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include "cuda/device_memory.cuh"
#include "cuda/launch.cuh"
#include "cuda/machine.hpp"
#include "cuda/products.cuh"

namespace lm::cuda {

/// Outlives what was allocated on it.
class cuda_machine {
 public:
  cuda_machine() : products_(stream_) {}

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

 protected:
  cuda::products& products() noexcept { return products_; }

 private:
  device_stream stream_;
  cuda::products products_;
};

static_assert(machine<cuda_machine>);

}  // namespace lm::cuda
