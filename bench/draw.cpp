// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What does a route cost? Plans per second, drawn and checked, for every sampler: once per training
// pass, beside some milliseconds at the very least.
#include <cstdint>
#include <string>

#include <strata/plan.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/routing/random_window.hpp>
#include <strata/routing/recorded_route.hpp>

#include "machine.hpp"

namespace {

template <class Sampler>
void add(std::string const& sampler_name, std::int32_t layers, Sampler const& sampler) {
  auto const name = "draw/sampler:" + sampler_name + "/layers:" + std::to_string(layers);
  auto const classes = strata::kv_classes::uniform(layers);
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    strata::draw_key key{.seed = 1};
    for (auto _ : state) {
      ++key.step;
      auto const plan = strata::make_plan(sampler, classes, key);
      if (!plan.ok()) return state.SkipWithError(strata::describe(plan.state()).c_str());
      benchmark::DoNotOptimize(*plan);
    }
    state.counters["plans_per_second"] =
        benchmark::Counter(1, benchmark::Counter::kIsIterationInvariantRate);
  });
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (std::int32_t const layers : {36, 256}) {
    auto const classes = strata::kv_classes::uniform(layers);
    for (char const* const routing : {"self", "rcla:0.6", "cla:4", "rdcla:4:0.6", "sets:1,0.5,0.25",
                                      "mix:full/every:2/every:4"})
      add(routing, layers, *strata::parse_routing(routing, classes));
    add("random_previous", layers, strata::random_previous<>(0.6));  // its own type, no variant
    add("random_window:8", layers, strata::random_window<8>(0.6));
    std::vector<std::int32_t> sources;
    for (std::int32_t l = 0; l < layers; ++l) sources.push_back(l / 2);
    add("recorded", layers, strata::recorded_route(sources));
  }
  return session.run();
}
