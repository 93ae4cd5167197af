// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A captured graph of a decode step, replayed for other batches: memory, storage, mirror, append
// and attention as an engine has them, on a stream of its own.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include <strata/attention/reference.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/attention.cuh>
#include <strata/cuda/step_mirror.cuh>
#include <strata/cuda/storage.cuh>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "support/cache_tensor.hpp"
#include "support/device_steps.hpp"

namespace {

using strata::bf16_codec;
using strata::layer_id;
using namespace strata::cuda;
namespace serving = support::serving;
using support::as_size;

constexpr std::int32_t batch_size = 2, turns = 5;

using stored_there = strata::cuda::device_storage<strata::paged_storage<bf16_codec>>;
using device_server = strata::stack<stored_there, strata::reference_attention>;

}  // namespace

TEST_CASE("device graph: captured once, replayed for other sequences, depths and lengths") {
  ::cudaStream_t stream = nullptr;
  REQUIRE(::cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == ::cudaSuccess);
  {
    strata::paged_options const room{4, 96, 16, 120, 120};
    device_server device(stored_there::make(stream, serving::model, room).value());
    strata::stack host(strata::paged_storage<bf16_codec>(serving::model, room),
                       strata::reference_attention{});
    std::vector<strata::sequence_id> ids;
    for (auto const every : {1, 2, 4, 1}) {
      auto const plan =
          *strata::make_plan(strata::grouped_map(serving::layers, every), serving::model);
      ids.push_back(device.open(plan).value());
      REQUIRE(host.open(plan).value() == ids.back());
    }
    auto mirror =
        step_mirror::make({stream}, device.storage(),
                          step_mirror::bytes_for(serving::layers, batch_size, batch_size, 16))
            .value();
    auto const kernel =
        make_attention<basic_attention<64>>(stream, {.rows = batch_size, .rows_per_seq = 1})
            .value();
    std::vector<serving::layer_rows> rows(serving::layers, serving::layer_rows(batch_size));
    std::vector<std::byte> workspace(1 << 22);

    ::cudaGraphExec_t replay = nullptr;
    for (std::int32_t turn = 0; turn < turns; ++turn) {
      CAPTURE(turn);
      std::vector<std::int32_t> const tokens(batch_size, 1);
      std::vector<strata::batch_entry> batch;
      for (std::int32_t i = 0; i < batch_size; ++i)
        batch.push_back({ids[as_size((turn + i + 1) % 4)], 1});
      auto step = device.begin(batch);
      REQUIRE(step.state().ok());
      serving::fill(step, tokens, rows);
      REQUIRE(mirror.send(step).ok());
      if (turn == 0) {
        ::cudaGraph_t graph = nullptr;
        REQUIRE(::cudaStreamBeginCapture(stream, ::cudaStreamCaptureModeThreadLocal) ==
                ::cudaSuccess);
        serving::run_layers(step, mirror, kernel, rows, workspace);
        REQUIRE(::cudaStreamEndCapture(stream, &graph) == ::cudaSuccess);
        REQUIRE(::cudaGraphInstantiate(&replay, graph, 0) == ::cudaSuccess);
        REQUIRE(::cudaGraphDestroy(graph) == ::cudaSuccess);
      } else {
        // Only the books: which rows were stored. The launches are the graph's.
        for (layer_id l{0}; serving::layers > l.index; ++l.index) {
          for (auto const& run : step.k_writers(l)) run.mark_stored();
          for (auto const& run : step.v_writers(l)) run.mark_stored();
        }
      }
      REQUIRE(::cudaGraphLaunch(replay, stream) == ::cudaSuccess);
      REQUIRE(::cudaStreamSynchronize(stream) == ::cudaSuccess);
      REQUIRE(step.commit().ok());
      CHECK(serving::compare(host, batch, rows) < 0.02);
    }
    REQUIRE(::cudaGraphExecDestroy(replay) == ::cudaSuccess);
  }
  REQUIRE(::cudaStreamDestroy(stream) == ::cudaSuccess);
}
