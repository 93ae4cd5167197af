// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A captured graph of a decode step, replayed for other batches: memory, storage, mirror, append
// and attention as an engine has them, on a stream of its own.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include <strata/attention/reference.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/append.cuh>
#include <strata/cuda/attention.cuh>
#include <strata/cuda/step_mirror.cuh>
#include <strata/cuda/storage.cuh>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "support/cache_tensor.hpp"
#include "support/device_serving.hpp"
#include "support/print.hpp"

namespace {

using strata::bf16_codec;
using strata::bfloat16;
using strata::layer_id;
using namespace strata::cuda::experimental;
namespace serving = support::serving;
using support::as_size;

constexpr std::int32_t batch_size = 2, turns = 5;
constexpr auto width = std::int64_t{serving::kv_heads} * serving::dim;
constexpr auto q_width = std::int64_t{serving::q_heads} * serving::dim;

/// What the rows of a step bring and get, of one layer, in memory that host and device see.
struct layer_rows {
  std::vector<bfloat16> k, v, q, out;
};

using device_storage = strata::cuda::device_storage<strata::paged_storage<bf16_codec>>;
using device_server = strata::stack<device_storage, strata::reference_attention>;

/// The launches of a step: appended, then attended, layer by layer.
template <class Step, class Kernel>
void run_layers(Step& step, step_mirror const& mirror, Kernel const& kernel, ::cudaStream_t stream,
                std::vector<layer_rows>& rows, std::span<std::byte> workspace) {
  strata::serial_executor here;
  for (layer_id l{0}; serving::layers > l.index; ++l.index) {
    auto& x = rows[as_size(l.index)];
    // Later batches may store where these do not.
    auto const k = mirror.k_side(step, l, std::as_const(x.k).data(), true);
    auto const v = mirror.v_side(step, l, std::as_const(x.v).data(), true);
    REQUIRE(append<bf16_codec, bf16_codec>(stream, k, v).ok());
    strata::layer_queries<bfloat16> const queries{
        .q = x.q.data(), .out = x.out.data(), .q_heads = serving::q_heads};
    auto const asked = mirror.queries(step, l, queries).value();
    auto const view = mirror.view(step, l).value();
    auto const done = strata::attend(here, kernel, asked, view, workspace);
    CAPTURE(done);
    REQUIRE(done.ok());
  }
}

/// The numbers of a step's rows.
template <class Step>
void fill(Step const& step, std::vector<std::int32_t> const& tokens,
          std::vector<layer_rows>& rows) {
  for (layer_id l{0}; serving::layers > l.index; ++l.index) {
    auto& x = rows[as_size(l.index)];
    auto const put = [&](std::vector<bfloat16>& to, std::int32_t heads, std::uint64_t what) {
      auto const from = serving::rows_of<bfloat16>(step, tokens, heads, what, l);
      std::copy(from.begin(), from.end(), to.begin());
    };
    put(x.k, serving::kv_heads, 1);
    put(x.v, serving::kv_heads, 2);
    put(x.q, serving::q_heads, 3);
  }
}

/// The same step on the host; the greatest difference from what the device made.
template <class Host>
double compare(Host& host, std::vector<strata::batch_entry> const& batch,
               std::vector<layer_rows> const& rows) {
  auto step = host.begin(batch);
  REQUIRE(step.state().ok());
  strata::serial_executor here;
  std::vector<std::byte> workspace(1 << 16);
  double worst = 0;
  for (layer_id l{0}; serving::layers > l.index; ++l.index) {
    auto const& x = rows[as_size(l.index)];
    for (auto const& run : step.k_writers(l)) run.store_all(x.k.data() + run.first_row() * width);
    for (auto const& run : step.v_writers(l)) run.store_all(x.v.data() + run.first_row() * width);
    auto const wide = support::widened(x.q);
    std::vector<double> const q(wide.begin(), wide.end());
    std::vector<double> exact(q.size());
    strata::layer_queries<double> const asked{
        .q = q.data(), .out = exact.data(), .q_heads = serving::q_heads};
    REQUIRE(step.attend(here, l, asked, workspace).ok());
    for (std::int64_t i = 0; i < step.num_rows() * q_width; ++i)
      worst = std::max(worst, std::abs(strata::to_float(x.out[as_size(i)]) - exact[as_size(i)]));
  }
  REQUIRE(step.commit().ok());
  return worst;
}

}  // namespace

TEST_CASE("device graph: captured once, replayed for other sequences, depths and lengths") {
  ::cudaStream_t stream = nullptr;
  REQUIRE(::cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == ::cudaSuccess);
  {
    strata::paged_options const room{4, 96, 16, 120, 120};
    device_server device(device_storage::make(stream, serving::model, room).value());
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
    std::vector<layer_rows> rows(serving::layers);
    for (auto& x : rows) {
      x.k.resize(as_size(batch_size * width));
      x.v.resize(as_size(batch_size * width));
      x.q.resize(as_size(batch_size * q_width));
      x.out.resize(as_size(batch_size * q_width));
    }
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
      fill(step, tokens, rows);
      REQUIRE(mirror.send(step).ok());
      if (turn == 0) {
        ::cudaGraph_t graph = nullptr;
        REQUIRE(::cudaStreamBeginCapture(stream, ::cudaStreamCaptureModeThreadLocal) ==
                ::cudaSuccess);
        run_layers(step, mirror, kernel, stream, rows, workspace);
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
      CHECK(compare(host, batch, rows) < 0.02);
    }
    REQUIRE(::cudaGraphExecDestroy(replay) == ::cudaSuccess);
  }
  REQUIRE(::cudaStreamDestroy(stream) == ::cudaSuccess);
}
