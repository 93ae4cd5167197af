// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What does storing new K/V cost, and what do shared caches save of it? A step through 8 layers of
// Llama-3.1-8B's shape that stores every new row through the step's writers and attends nothing.
// A group of layers stores once; followers have no run to write. With /rope, K is rotated before it
// is stored, a slab of rows at a time, or while it is (`fused`): the same numbers end in the cache.
#include <cstdint>
#include <string>

#include "cache_model.hpp"

namespace {

template <class Codec>
void add(bench::session& session, std::int32_t group, std::int32_t batch, std::int32_t rows,
         bench::rope_place rope = bench::rope_place::none) {
  auto name = "append/group:" + std::to_string(group) + "/batch:" + std::to_string(batch) +
              "/rows:" + std::to_string(rows) + "/codec:" + bench::codec_name<Codec>;
  if (rope != bench::rope_place::none)
    name += rope == bench::rope_place::fused ? "/rope:fused" : "/rope:before";
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=, &session](benchmark::State& state) {
        bench::cache_model<Codec> model(session.pool(), {}, group, batch, 0, rows, rope);
        for (auto _ : state) model.step(false);
        state.counters["written_bytes_per_second"] =
            benchmark::Counter(model.stored_bytes(), benchmark::Counter::kIsIterationInvariantRate);
        state.counters["tokens_per_second"] =
            benchmark::Counter(model.rows(), benchmark::Counter::kIsIterationInvariantRate);
      })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (std::int32_t const group : {1, 2, 4}) {
    add<strata::bf16_codec>(session, group, 1, 1);
    add<strata::bf16_codec>(session, group, 16, 1);
    add<strata::bf16_codec>(session, group, 1, 4096);
  }
  add<strata::f16_codec>(session, 1, 1, 4096);
  add<strata::f32_codec>(session, 1, 1, 4096);
  add<strata::int8_codec>(session, 1, 1, 4096);
  add<strata::q8_0_codec>(session, 1, 1, 4096);
  for (auto const place : {bench::rope_place::before, bench::rope_place::fused}) {
    for (std::int32_t const rows : {1, 4096}) add<strata::bf16_codec>(session, 1, 1, rows, place);
    add<strata::bf16_codec>(session, 1, 16, 1, place);
    add<strata::f32_codec>(session, 1, 1, 4096, place);
    add<strata::int8_codec>(session, 1, 1, 4096, place);
  }
  return session.run();
}
