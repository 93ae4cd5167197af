// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences of a device's storage that leave for page-locked memory and come back, with nobody
// waiting in between.
#include <doctest/doctest.h>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/host_tier.cuh>
#include <strata/cuda/storage.cuh>

#include "support/offloaded_sequences.hpp"

namespace {

using copier = strata::cuda::stream_copier;

/// Bytes that are written and read in the order of a stream; what is written stays until then.
struct stream_memory {
  ::cudaStream_t stream;

  void write(std::byte* to, std::vector<std::byte> const& bytes) const {
    REQUIRE(::cudaMemcpyAsync(to, bytes.data(), bytes.size(), ::cudaMemcpyDefault, stream) ==
            ::cudaSuccess);
  }
  std::vector<std::byte> read(std::byte const* from, std::size_t bytes) const {
    std::vector<std::byte> got(bytes);
    REQUIRE(::cudaMemcpyAsync(got.data(), from, bytes, ::cudaMemcpyDefault, stream) ==
            ::cudaSuccess);
    REQUIRE(::cudaStreamSynchronize(stream) == ::cudaSuccess);
    return got;
  }
};

template <class Storage>
void check() {
  using device_storage = strata::cuda::device_storage<Storage>;
  ::cudaStream_t stream = nullptr;
  REQUIRE(::cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == ::cudaSuccess);
  {
    namespace tiers = support::tiers;
    auto storage = device_storage::make(stream, tiers::model, tiers::room).value();
    auto tier = strata::host_tier<copier>::make(storage, tiers::tier_room, {stream}).value();
    tiers::run(storage, tier, stream_memory{stream},
               [&] { REQUIRE(::cudaStreamSynchronize(stream) == ::cudaSuccess); });
    CHECK(tier.wait().ok());
  }
  REQUIRE(::cudaStreamDestroy(stream) == ::cudaSuccess);
}

}  // namespace

TEST_CASE("device tier: sequences go and come back, nobody waiting") {
  check<strata::paged_storage<strata::bf16_codec>>();
  check<strata::paged_storage<strata::fp8_codec, strata::int8_codec>>();
}
