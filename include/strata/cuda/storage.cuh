// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The storages of the host with their K and V on a device: books, block tables and plans are as
// they were, and step_mirror.cuh brings them to kernels. An engine's own memory needs none of this:
// a borrowed_storage takes pointers of a device as they are (borrowed_storage.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <cuda_runtime_api.h>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/cuda/borrowed_storage.hpp>
#include <strata/cuda/memory.cuh>
#include <strata/geometry.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

/// contiguous_storage or paged_storage. Its memory is not cleared: keys that nobody stored are
/// nobody's to read. Runs of its steps refuse the host's `store`.
template <cache_storage Storage>
class device_storage : public Storage {
 public:
  static constexpr bool on_device = true;

  /// Takes everything at once from the device's pool, in the order of `stream`.
  template <class Options>
  static result<device_storage> make(::cudaStream_t stream, kv_classes const& classes,
                                     Options const& options,
                                     head_scales const& scales = {}) noexcept {
    auto const bytes = Storage::memory_bytes(classes, options);
    if (!bytes.ok()) return bytes.state();
    auto k = device_memory::make(stream, bytes->k), v = device_memory::make(stream, bytes->v);
    if (!k.ok()) return k.state();
    if (!v.ok()) return v.state();
    auto books = Storage::make(classes, options, {k->bytes(), v->bytes(), true}, scales);
    if (!books.ok()) return books.state();
    return result<device_storage>(device_storage(std::move(*books), std::move(*k), std::move(*v)));
  }

 private:
  device_storage(Storage books, device_memory k, device_memory v) noexcept
      : Storage(std::move(books)), k_(std::move(k)), v_(std::move(v)) {}

  device_memory k_, v_;
};

}  // namespace cuda

STRATA_NAMESPACE_END
