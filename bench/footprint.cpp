// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What does a token cost in memory? Bytes per token of K/V as storages allocate them, beside those
// of the plan, for known models and depths of sharing. Timed is the making of the storage and a
// sequence's first step: no page of it is touched.
//
// kv_bytes_at_8192 is for one sequence of 8192 tokens; retention is against every layer keeping its
// own.
#include <cstdint>
#include <string>

#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/footprint.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/map/strategy.hpp>
#include <strata/plan.hpp>

#include "machine.hpp"

namespace {

using codec = strata::bf16_codec;

struct model {
  char const* name;
  std::int32_t layers;  // of 8 KV heads x 128, all of them full attention
};

constexpr std::int32_t tokens = 1024;

std::int64_t contiguous(strata::kv_classes const& classes, strata::route_plan const& plan) {
  strata::contiguous_storage<codec> storage(classes,
                                            strata::contiguous_options::for_plan(plan, 1, tokens));
  return storage.allocated_bytes();
}

std::int64_t paged(strata::kv_classes const& classes, strata::route_plan const& plan) {
  strata::paged_options options;
  options.max_tokens = tokens;
  options.k_blocks = plan.k_slots * tokens / options.block_size;
  options.v_blocks = plan.v_slots * tokens / options.block_size;
  strata::paged_storage<codec> storage(classes, options);
  return storage.allocated_bytes();
}

void add(model const& m, char const* strategy, bool is_paged) {
  auto const name = std::string("footprint/model:") + m.name + "/strategy:" + strategy +
                    "/storage:" + (is_paged ? "paged" : "contiguous");
  strata::layer_kind kind;
  kind.kv = {8, 128, 128};
  auto const classes = strata::kv_classes::uniform(m.layers, kind);
  auto const plan = *make_plan(*strata::parse_strategy(strategy, classes), classes);
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    std::int64_t allocated = 0;
    for (auto _ : state) allocated = is_paged ? paged(classes, plan) : contiguous(classes, plan);
    auto const planned = static_cast<double>(strata::bytes_per_token<codec>(plan, classes));
    state.counters["allocated_bytes_per_token"] = static_cast<double>(allocated) / tokens;
    state.counters["planned_bytes_per_token"] = planned;
    state.counters["kv_bytes_at_8192"] = planned * 8192;
    state.counters["leaders"] = plan.k_slots;
    state.counters["retention"] = strata::retention<codec>(plan, classes);
  });
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (model const m : {model{"llama-3.1-8b", 32}, {"mistral-7b", 32}, {"qwen3-8b", 36}})
    for (char const* const strategy : {"full", "every:2", "every:4"})
      for (bool const is_paged : {false, true}) add(m, strategy, is_paged);
  return session.run();
}
