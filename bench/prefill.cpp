// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How fast is attention over a prompt? A chunk of new tokens that follows `context` cached ones,
// stored and attended in 4 layers of Llama-3.1-8B's attention; projections are not part of it.
// Groups of layers that share a cache store less and attend as much.
#include <cstdint>
#include <string>

#include "cache_model.hpp"

namespace {

template <class Codec>
void add(bench::session& session, std::int32_t group, std::int32_t context, std::int32_t rows) {
  auto const name = "prefill/group:" + std::to_string(group) +
                    "/context:" + std::to_string(context) + "/rows:" + std::to_string(rows) +
                    "/codec:" + bench::codec_name<Codec>;
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=, &session](benchmark::State& state) {
        bench::cache_model<Codec> model(session.pool(), {4, 32, 8, 128}, group, 1, context, rows);
        for (auto _ : state) model.step(true);
        session.count_flops(state, model.flops());
        state.counters["kv_bytes"] = model.kv_bytes();
        state.counters["tokens_per_second"] =
            benchmark::Counter(rows, benchmark::Counter::kIsIterationInvariantRate);
      })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (std::int32_t const group : {1, 4}) {
    add<strata::bf16_codec>(session, group, 0, 512);
    add<strata::bf16_codec>(session, group, 3584, 512);
    add<strata::bf16_codec>(session, group, 4095, 8);  // a few drafts
  }
  add<strata::f16_codec>(session, 1, 3584, 512);
  add<strata::f32_codec>(session, 1, 3584, 512);
  return session.run();
}
