// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A tier of host memory under the storages of a device: cache/host_tier.hpp with a copier that goes
// through a stream.
//
//     using tier_type = host_tier<cuda::stream_copier>;
//     auto tier = *tier_type::make(server.storage(), {.bytes = std::int64_t{8} << 30}, {stream});
//     auto const away = tier.offload(server.between_steps(), id);
//     auto const back = tier.reload(server.between_steps(), *away);
//
// Nobody waits: where the steps run on the same stream, what comes after `offload` may write to the
// blocks that became free, and what comes after `reload` reads what came back. Not while a graph is
// captured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <cuda_runtime_api.h>

#include <strata/cache/host_tier.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/launch.cuh>
#include <strata/cuda/memory.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

/// Copies in the order of a stream, which outlives the tier, to page-locked memory and from it.
/// Storages of the host are reached as well: `wait` before the host looks at what came back.
struct stream_copier {
  static constexpr bool on_device = true;

  ::cudaStream_t stream = nullptr;

  /// Page-locked: it takes its pages from the system at once, and some time. Waits for the stream
  /// before it goes.
  class memory {
   public:
    static result<memory> make(stream_copier const& copier, std::int64_t bytes) noexcept {
      auto pages = staging_memory::make(bytes);
      if (!pages.ok()) return pages.state();
      memory made;
      made.pages_ = std::move(*pages);
      made.stream_ = copier.stream;
      return result<memory>(std::move(made));  // nvcc 13 does not move by itself
    }
    memory() noexcept = default;
    memory(memory&& other) noexcept { swap(other); }
    memory& operator=(memory&& other) noexcept {
      swap(other);
      return *this;
    }
    ~memory() {
      if (data() != nullptr) (void)::cudaStreamSynchronize(stream_);
    }

    std::byte* data() const noexcept { return pages_.data(); }

   private:
    void swap(memory& other) noexcept {
      std::swap(pages_, other.pages_);
      std::swap(stream_, other.stream_);
    }

    staging_memory pages_;
    ::cudaStream_t stream_ = nullptr;
  };

  status copy(std::byte* to, std::byte const* from, std::size_t bytes) const noexcept {
    return cuda::detail::as_status(::cudaMemcpyAsync(to, from, bytes, ::cudaMemcpyDefault, stream));
  }
  status wait() const noexcept { return cuda::detail::as_status(::cudaStreamSynchronize(stream)); }
};

static_assert(tier_copier<stream_copier>);

}  // namespace cuda

STRATA_NAMESPACE_END
