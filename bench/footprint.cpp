// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What does a token cost in memory? Bytes per token of K/V as storages allocate them, beside those
// of the plan, for known models and depths of sharing. Timed is the making of the storage and a
// sequence's first step: no page of it is touched.
//
// kv_bytes_at_8192 is for one sequence of 8192 tokens; retention is against every layer keeping its
// own.
//
// And how many sequences of all lengths does one memory hold, at each depth? of_byte_ratio is that
// number over full's, over the quotient of their bytes per token: 1 if nothing were lost to rounding
// and tables. blocks_above_formula is what a stored tensor of a sequence takes beyond its tokens, the
// most of all of them: 1 at most. Timed is the filling of the books.
#include <algorithm>
#include <cmath>
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

/// Sequences that one memory holds.
struct filling {
  std::int32_t sequences = 0;
  double blocks_above_formula = 0;  ///< of a stored tensor, the most
};

/// The model whose memory is shared: rows of it as large as those of real heads would hide nothing
/// but the wait for 64 GiB, so heads of 1 stand for them, and blocks are counted.
constexpr std::int32_t served_layers = 36;
constexpr std::int32_t longest = 8192, block_size = 16;
constexpr std::int64_t memory_bytes = std::int64_t{64} << 30;
constexpr std::int64_t block_bytes = std::int64_t{block_size} * 8 * 128 * 2;  // bf16
/// Of block tables, for K and V, per sequence that there is room for.
constexpr std::int64_t table_bytes = std::int64_t{2} * 4 * served_layers * longest / block_size;

/// Half of a block per tensor is the mean loss, and table rows are for a tenth more than fit.
strata::paged_options options_for(strata::route_plan const& plan) {
  constexpr std::int64_t mean_tokens = longest / 2;
  auto const sequence = 2 * plan.k_slots * mean_tokens / block_size * block_bytes;
  auto const rows = memory_bytes / sequence * 11 / 10;
  auto const blocks = (memory_bytes - rows * table_bytes) / (2 * block_bytes);
  strata::paged_options o;
  o.max_sequences = static_cast<std::int32_t>(rows);
  o.max_tokens = longest;
  o.block_size = block_size;
  o.k_blocks = o.v_blocks = static_cast<std::int32_t>(blocks);
  return o;
}

/// Takes in sequences until one does not fit: of 1 to `longest` tokens, evenly at any number of them,
/// so that it is the depths that differ and not whose lengths were drawn luckily.
filling fill(strata::paged_storage<codec>& storage, strata::route_plan const& plan) {
  filling f;
  double golden = 0;
  while (f.sequences < storage.max_sequences()) {
    auto const id = *storage.open(plan);
    golden += 0.6180339887498949;
    golden -= std::floor(golden);
    strata::growth const g{id, 1 + static_cast<std::int32_t>(golden * longest)};
    auto const before = storage.free_k_blocks();
    if (!storage.reserve({&g, 1}).ok()) break;
    storage.commit();
    auto const taken = static_cast<double>(before - storage.free_k_blocks()) / plan.k_slots;
    f.blocks_above_formula =
        std::max(f.blocks_above_formula, taken - static_cast<double>(g.new_tokens) / block_size);
    ++f.sequences;
  }
  return f;
}

filling fill_new(strata::kv_classes const& classes, strata::route_plan const& plan) {
  auto storage = strata::paged_storage<codec>::make(classes, options_for(plan));
  bench::require(storage.state());
  return fill(*storage, plan);
}

void add_batch(char const* strategy) {
  auto const classes = strata::kv_classes::uniform(served_layers, {.kv = {1, 1, 1}});
  auto const plan_of = [classes](char const* s) {
    return *make_plan(*strata::parse_strategy(s, classes), classes);
  };
  auto const name = std::string("footprint/batch/strategy:") + strategy;
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    auto const plan = plan_of(strategy);
    auto const full = fill_new(classes, plan_of("full"));
    filling f;
    for (auto _ : state) f = fill_new(classes, plan);
    auto const bytes_ratio = static_cast<double>(served_layers) / plan.k_slots;
    state.counters["sequences"] = f.sequences;
    state.counters["of_byte_ratio"] = f.sequences / bytes_ratio / full.sequences;
    state.counters["blocks_above_formula"] = f.blocks_above_formula;
  });
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (model const m : {model{"llama-3.1-8b", 32}, {"mistral-7b", 32}, {"qwen3-8b", 36}})
    for (char const* const strategy : {"full", "every:2", "every:4"})
      for (bool const is_paged : {false, true}) add(m, strategy, is_paged);
  for (char const* const strategy : {"full", "every:2", "every:4", "every:8"}) add_batch(strategy);
  return session.run();
}
