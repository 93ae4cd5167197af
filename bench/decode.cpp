// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How fast is a decode step, and what does sharing caches across depth change? A step of one token
// per sequence through 8 layers of Llama-3.1-8B's attention, of which `group` read one cache.
//
// Sharing cuts what is stored, not what is read: layers follow one another, and each reads its
// source's K/V in full. It saves reads only where the shared cache of a group stays in a cache of
// the CPU: 32 MiB per layer at 8192 tokens of bf16, 8 MiB at 2048. Then it may stay there from step
// to step, too, which no model's weights let it do: bench/group.cpp tells the two apart.
#include <cstdint>
#include <string>

#include "cache_model.hpp"

namespace {

template <class Codec>
void add(bench::session& session, std::int32_t group, std::int32_t context, std::int32_t batch) {
  auto const name = "decode/group:" + std::to_string(group) +
                    "/context:" + std::to_string(context) + "/batch:" + std::to_string(batch) +
                    "/codec:" + bench::codec_name<Codec>;
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=, &session](benchmark::State& state) {
        bench::cache_model<Codec> model(session.pool(), {}, group, batch, context, 1);
        for (auto _ : state) model.step(true);
        session.count_bytes(state, model.read_bytes());
        state.counters["kv_bytes"] = model.kv_bytes();
        state.counters["tokens_per_second"] =
            benchmark::Counter(batch, benchmark::Counter::kIsIterationInvariantRate);
      })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (std::int32_t const group : {1, 2, 4, 8}) {
    add<strata::bf16_codec>(session, group, 8192, 1);
    add<strata::bf16_codec>(session, group, 2048, 1);
    add<strata::bf16_codec>(session, group, 2048, 4);
  }
  for (std::int32_t const group : {1, 4}) {
    add<strata::f16_codec>(session, group, 8192, 1);
    add<strata::f32_codec>(session, group, 8192, 1);
  }
  return session.run();
}
