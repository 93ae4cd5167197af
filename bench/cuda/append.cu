// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What does storing a step's new K/V on a device cost, and what do shared caches save of it? A
// launch per leader, K turned by RoPE on the way, into blocks of 16 tokens anywhere in memory: one
// token of each of 8 sequences, and 5000 of 5, for 36, 9 and 1 leaders of Qwen3-8B's 36 layers.
//
// seconds: per step, all leaders. seconds_per_launch: of one of them. fraction_of_copy: bytes read
// and written per second / those of a copy within the device, measured in the same run.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rope.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>
#include <strata/cuda/append.cuh>

#include "../codec_name.hpp"
#include "../random_floats.hpp"
#include "attention_case.hpp"
#include "device.cuh"
#include "session.cuh"

namespace {

using bench::device_array;
using element = strata::bfloat16;

struct append_case {
  std::int32_t tokens, sequences, leaders;
  bool rope = true;

  std::string name(char const* codec) const {
    return "append/kernel:strata/codec:" + std::string(codec) +
           "/tokens:" + std::to_string(tokens) + "/sequences:" + std::to_string(sequences) +
           "/leaders:" + std::to_string(leaders) + (rope ? "/rope:fused" : "");
  }
};

/// The new rows of all leaders, several times, and where they go. Sequences go on from the middle
/// of a block.
template <class Codec>
class append_step {
 public:
  append_step(append_case const& c, std::int64_t l2_bytes)
      : case_(c),
        launches_(launches_in_turn(l2_bytes)),
        blocks_(std::int64_t{c.sequences} * blocks_per_row()),
        k_(random_queries(launches_ * c.tokens * width, 1)),
        v_(random_queries(launches_ * c.tokens * width, 2)),
        data_(2 * launches_ * blocks_ * block * heads * Codec::row_bytes(dim)),
        scales_(2 * launches_ * blocks_ * block * heads * Codec::scale_bytes(dim)),
        cos_(bench::random_floats(std::int64_t{most_positions} * dim / 2, 5)),
        sin_(bench::random_floats(std::int64_t{most_positions} * dim / 2, 6)) {
    std::vector<std::int32_t> table(static_cast<std::size_t>(blocks_)), rows, seqs, tokens,
        positions;
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::minstd_rand(4));
    for (std::int32_t i = 0; i < c.tokens; ++i) {
      rows.push_back(i);
      seqs.push_back(i / rows_per_seq());
      tokens.push_back(first_token + i % rows_per_seq());
      positions.push_back(4096 + i % rows_per_seq());
    }
    table_ = device_array<std::int32_t>(table);
    rows_ = device_array<std::int32_t>(rows);
    sequence_ = device_array<std::int32_t>(seqs);
    token_ = device_array<std::int32_t>(tokens);
    positions_ = device_array<std::int32_t>(positions);
  }

  std::int64_t steps() const { return launches_ / case_.leaders; }
  /// K and V, read and written, of a step.
  double bytes() const { return static_cast<double>(case_.leaders * bytes_of_launch()); }

  void enqueue(cudaStream_t stream) const {
    auto const rope = case_.rope
                          ? strata::rotary<float>::of(cos_.data(), sin_.data(), most_positions, dim)
                          : strata::rotary<float>{};
    for (std::int64_t i = 0; i < launches_; ++i)
      bench::require(strata::cuda::append<Codec, Codec>(stream, side(k_, i, 2 * i),
                                                        side(v_, i, 2 * i + 1), rope));
  }

 private:
  static constexpr std::int32_t heads = 8, dim = 128, block = 16, width = heads * dim;
  static constexpr std::int32_t first_token = 5, most_positions = 8192;

  static device_array<element> random_queries(std::int64_t elements, std::uint32_t seed) {
    device_array<element> rows(elements);
    bench::fill_random<<<4096, 256>>>(reinterpret_cast<std::uint32_t*>(rows.data()), elements / 2,
                                      seed);
    bench::require(cudaDeviceSynchronize());
    return rows;
  }

  std::int32_t rows_per_seq() const { return case_.tokens / case_.sequences; }
  std::int32_t blocks_per_row() const { return (first_token + rows_per_seq() + block - 1) / block; }
  std::int64_t bytes_of_launch() const {
    auto const stored = Codec::row_bytes(dim) + Codec::scale_bytes(dim);
    return 2 * std::int64_t{case_.tokens} * heads *
           (dim * static_cast<std::int64_t>(sizeof(element)) + stored);
  }
  /// Whole steps. A graph of more than 1024 launches takes long to make; so many of 8 tokens are
  /// 1.3 times an H100's second-level cache.
  std::int64_t launches_in_turn(std::int64_t l2_bytes) const {
    auto const launches =
        std::min<std::int64_t>(1024, bench::sets_in_turn(bytes_of_launch(), l2_bytes));
    return (launches + case_.leaders - 1) / case_.leaders * case_.leaders;
  }

  strata::cuda::append_side<element> side(device_array<element> const& from, std::int64_t launch,
                                          std::int64_t tensor) const {
    strata::cuda::append_side<element> side;
    side.heads = from.data() + launch * case_.tokens * width;
    auto const rows = tensor * blocks_ * block * heads;
    auto& to = side.to;
    to.blocks = strata::nhd_blocks<Codec>(data_.data() + rows * Codec::row_bytes(dim), block, heads,
                                          dim, scales_.data() + rows * Codec::scale_bytes(dim));
    to.blocks.block_table = table_.data();
    to.blocks.blocks_per_row = blocks_per_row();
    to.rows = rows_.data();
    to.sequence = sequence_.data();
    to.token = token_.data();
    to.positions = positions_.data();
    to.kv_heads = heads;
    to.dim = dim;
    side.num_rows = case_.tokens;
    return side;
  }

  append_case case_;
  std::int64_t launches_, blocks_;
  device_array<element> k_, v_;
  device_array<std::byte> data_, scales_;
  device_array<float> cos_, sin_;
  device_array<std::int32_t> table_, rows_, sequence_, token_, positions_;
};

template <class Codec>
void add(bench::device_session& session, append_case const& c) {
  benchmark::RegisterBenchmark(
      c.name(bench::codec_name<Codec>).c_str(),
      [=, &session](benchmark::State& state) {
        append_step<Codec> const step(c, session.l2_bytes());
        bench::captured_graph const graph(session.stream(),
                                          [&] { step.enqueue(session.stream()); });
        bench::time_graph(state, session.stream(), graph, step.steps());
        auto const invert =
            benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert;
        state.counters["seconds"] = benchmark::Counter(1, invert);
        state.counters["seconds_per_launch"] = benchmark::Counter(c.leaders, invert);
        state.counters["bytes"] = step.bytes();
        state.counters["launches"] =
            static_cast<double>(graph.nodes()) / static_cast<double>(step.steps());
        state.counters["rows_per_launch"] = 2 * c.tokens;
        session.rate(state, "GB_per_second", step.bytes() * 1e-9);
        session.rate(state, "fraction_of_copy", step.bytes() / session.limits().copy_bytes);
      })
      ->UseManualTime()
      ->Iterations(5)
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace

int main(int argc, char** argv) {
  bench::device_session session(argc, argv);
  for (std::int32_t const leaders : {1, 9, 36}) {
    add<strata::bf16_codec>(session, {8, 8, leaders});
    add<strata::bf16_codec>(session, {5000, 5, leaders});
  }
  add<strata::bf16_codec>(session, {5000, 5, 1, false});
  add<strata::int8_codec>(session, {8, 8, 1});
  add<strata::int8_codec>(session, {5000, 5, 1});
  return session.run();
}
