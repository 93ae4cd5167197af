// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What does a training step of the reference model cost, and what does routing change of it? Whole
// steps of the demo's model (forward, backward, clipping, AdamW) beside the same matrix products
// made by the BLAS alone: of_blas is how much of the step those explain. Under a routing, K and V
// that nobody reads are not projected, so a step may cost less than plain training's.
#include <cstdint>
#include <string>

#include "blas_rate.hpp"
#include "machine.hpp"
#include "trainer.hpp"

namespace {

void add(bench::session& session, std::string const& routing, double blas_seconds) {
  auto const name = "training_step/routing:" + routing;
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=, &session](benchmark::State& state) {
        auto const text = lm::noise_text();
        lm::training_options options;
        options.routing = routing;
        options.steps = std::int64_t{1} << 30;
        lm::trainer run(options, text, session.pool());
        run.step();  // touches all memory for the first time
        for (auto _ : state) run.step();
        auto const rows = options.tokens_per_step();
        session.count_flops(state, lm::step_flops(options.model, rows));
        state.counters["tokens_per_second"] = benchmark::Counter(
            static_cast<double>(rows), benchmark::Counter::kIsIterationInvariantRate);
        state.counters["of_blas"] =
            benchmark::Counter(blas_seconds, benchmark::Counter::kIsIterationInvariantRate);
      })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  lm::training_options const options;
  auto const alone = lm::blas_seconds(options.model, options.tokens_per_step(), session.pool());
  benchmark::AddCustomContext("blas_seconds_per_step", std::to_string(alone));
  for (auto const* const routing : {"self", "rcla:0.75", "rcla:0.5", "cla:2", "sets:0.5,0.25"})
    add(session, routing, alone);
  return session.run();
}
