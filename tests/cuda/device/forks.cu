// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Forks on a device: blocks that they share are copied there, their tables go with the step, and
// steps follow each other with nobody waiting in between.
#include <doctest/doctest.h>

#include <cuda_runtime_api.h>

#include <strata/attention/reference.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/attention.cuh>
#include <strata/cuda/step_mirror.cuh>
#include <strata/cuda/storage.cuh>
#include <strata/stack.hpp>

#include "support/device_steps.hpp"

namespace {

using namespace strata::cuda;
namespace serving = support::serving;

using stored_there = strata::cuda::device_storage<strata::paged_storage<strata::bf16_codec>>;
using device_server = strata::stack<stored_there, strata::reference_attention>;
using servers = serving::forking_servers<device_server, step_mirror, basic_attention<64>>;

}  // namespace

TEST_CASE("device forks: steps one after the other, nobody waiting in between") {
  ::cudaStream_t stream = nullptr;
  REQUIRE(::cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == ::cudaSuccess);
  {
    device_server device(stored_there::make(stream, serving::model, servers::room).value(), {});
    auto mirror = step_mirror::make({stream}, device.storage(), servers::mirror_bytes).value();
    auto const kernel = make_attention<basic_attention<64>>(stream).value();
    servers both(device, mirror, kernel);
    both.run();
    REQUIRE(::cudaStreamSynchronize(stream) == ::cudaSuccess);
    CHECK(both.compare_all() < 0.02);
  }
  REQUIRE(::cudaStreamDestroy(stream) == ::cudaSuccess);
}
