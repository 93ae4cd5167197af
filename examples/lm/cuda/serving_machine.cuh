// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A device that serves: strata's mirror, append and attention on its stream, and graphs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/kernel.hpp>
#include <strata/cuda/append.cuh>
#include <strata/cuda/attention.cuh>
#include <strata/cuda/step_mirror.cuh>
#include <strata/executor.hpp>

#include "cuda/cuda_machine.cuh"
#include "cuda/serving_machine.hpp"

namespace lm::cuda {

template <class Kernel = strata::cuda::attention>
class cuda_serving_machine : public cuda_machine {
 public:
  using mirror = strata::cuda::step_mirror;
  using graph = device_graph;

  cuda_serving_machine() {
    auto const made = strata::cuda::make_attention<Kernel>(stream().get());
    lm::require(made.state(), "attention on a device");
    kernel_ = *made;
  }

  template <class T>
  pinned_buffer<T> pinned(std::int64_t count) {
    return pinned_buffer<T>(count);
  }
  template <class Storage>
  strata::result<mirror> make_mirror(Storage const& storage, std::int64_t bytes) noexcept {
    return mirror::make({stream().get()}, storage, bytes);
  }
  template <class KCodec, class VCodec>
  strata::status append(append_side const& k, append_side const& v,
                        strata::rotary<float> const& rope) noexcept {
    return strata::cuda::append<KCodec, VCodec>(stream().get(), k, v, rope);
  }

  template <class View>
  std::int64_t attention_bytes(served_queries const& q, View const& view,
                               strata::cuda::launch_bounds const& bounds) const noexcept {
    return within(bounds).workspace_bytes(q, view, 1);
  }
  template <class View>
  strata::status attend(served_queries const& q, View const& view,
                        strata::cuda::launch_bounds const& bounds,
                        std::span<std::byte> workspace) noexcept {
    strata::serial_executor here;
    return strata::attend(here, within(bounds), q, view, workspace);
  }

  template <class Body>
  void record(graph& g, Body const& body) {
    g.record(stream(), body);
  }
  void replay(graph& g) { g.launch(stream().get()); }

 private:
  Kernel within(strata::cuda::launch_bounds const& bounds) const noexcept {
    auto kernel = kernel_;
    kernel.bounds = bounds;
    return kernel;
  }

  Kernel kernel_;
};

}  // namespace lm::cuda
