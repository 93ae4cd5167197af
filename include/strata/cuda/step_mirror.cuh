// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A step of a stack whose K and V lie on a device: the host keeps the books, kernels read a copy.
//
//     auto mirror = step_mirror::make(stream, server.storage(), step_mirror::bytes_for(...)).value();
//     auto step = server.begin(batch);
//     if (auto const s = mirror.send(step); !s.ok()) return s;
//     for each layer:
//       for (auto const& run : step.k_writers(l)) {   // empty for followers: skip the product
//         k_side = {k, mirror.on_device(run.destination()), run.first_row(), run.num_rows()};
//         run.mark_stored();
//       }
//       append<k_codec, v_codec>(stream, k_side, v_side, rope);
//       auto const rows = mirror.on_device(*step.queries(l, queries));
//       attend(here, attention, rows, mirror.on_device(*step.view(l)), workspace);
//     step.commit();
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include <strata/config.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/cuda/memory.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

namespace detail {

struct stream_device {
  ::cudaStream_t stream = nullptr;

  struct buffer : device_memory {
    static result<buffer> make(stream_device const& device, std::int64_t bytes) noexcept {
      auto made = device_memory::make(device.stream, bytes);
      if (!made.ok()) return made.state();
      buffer owner;
      static_cast<device_memory&>(owner) = std::move(*made);
      return result<buffer>(std::move(owner));
    }
  };
  struct staging : staging_memory {
    static result<staging> make(stream_device const&, std::int64_t bytes) noexcept {
      auto made = staging_memory::make(bytes);
      if (!made.ok()) return made.state();
      staging owner;
      static_cast<staging_memory&>(owner) = std::move(*made);
      return result<staging>(std::move(owner));
    }
    status mark(stream_device const& device) const noexcept {
      return staging_memory::mark(device.stream);
    }
  };

  status copy(std::byte* to, void const* from, std::size_t bytes) const noexcept {
    if (bytes == 0) return {};
    return as_status(::cudaMemcpyAsync(to, from, bytes, ::cudaMemcpyHostToDevice, stream));
  }
  stream_launcher launcher() const noexcept { return {stream}; }
};

}  // namespace detail

namespace experimental {

using step_mirror = detail::step_mirror_on<detail::stream_device>;

}  // namespace experimental
}  // namespace cuda

STRATA_NAMESPACE_END
