// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What do the operations on whole sequences cost? Tokens reserved and committed, blocks taken, forks,
// prefixes found, caches that shrink, and sequences written down and taken up again, or moved to
// another tier of memory. Books only but for the last two: no K or V is computed, and per leader what
// would take most of the time is not there.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/cache/host_tier.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/cache/snapshot.hpp>
#include <strata/detail/large_memory.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/plan.hpp>

#include "machine.hpp"

namespace {

using storage_type = strata::paged_storage<strata::bf16_codec>;
using bench::require;
using strata::sequence_id;

constexpr std::int32_t layers = 36;

template <class T>
T checked(strata::result<T> made) {
  require(made.state());
  return *std::move(made);
}

strata::kv_classes model(std::int32_t dim) {
  return strata::kv_classes::uniform(layers, {.kv = {.kv_heads = 1, .k_dim = dim, .v_dim = dim}});
}
strata::route_plan plan_of(std::int32_t leaders) {
  return checked(make_plan(strata::spread_map(layers, leaders)));
}

/// Room for four sequences of so many tokens. Heads are tiny: blocks are counted, not filled.
storage_type make_storage(std::int32_t tokens, std::int32_t block_size, std::int32_t dim = 1,
                          std::int32_t leaders = layers) {
  strata::paged_options options;
  options.max_sequences = 4;
  options.max_tokens = tokens;
  options.block_size = block_size;
  options.k_blocks = options.v_blocks = 4 * leaders * ((tokens + block_size - 1) / block_size + 1);
  return checked(storage_type::make(model(dim), options));
}

void grow(storage_type& storage, sequence_id id, std::int32_t tokens) {
  strata::growth const g{id, tokens};
  require(storage.reserve({&g, 1}));
  storage.commit();
}

/// A step of one token, and of a block's tokens, which brings a block of K and one of V per leader.
void append(benchmark::State& state, std::int32_t leaders, std::int32_t tokens) {
  constexpr std::int32_t most = 1 << 16;
  auto storage = make_storage(most, 16, 1, leaders);
  auto const id = checked(storage.open(plan_of(leaders)));
  for (auto _ : state) {
    if (storage.length(id) + tokens > most) {
      state.PauseTiming();
      require(storage.truncate(id, 0));
      state.ResumeTiming();
    }
    grow(storage, id, tokens);
  }
  auto const blocks = 2.0 * leaders * tokens / 16;
  state.counters["per_block"] = benchmark::Counter(
      blocks, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void fork(benchmark::State& state, std::int32_t leaders, std::int32_t block_size) {
  constexpr std::int32_t tokens = 8192;
  auto storage = make_storage(tokens + 1, block_size, 1, leaders);
  auto const parent = checked(storage.open(plan_of(leaders)));
  grow(storage, parent, tokens);
  for (auto _ : state) {
    auto const child = checked(storage.fork(parent));
    state.PauseTiming();
    require(storage.close(child));
    state.ResumeTiming();
  }
}

/// The whole of a prompt of 8192 tokens is known, among `others` prompts.
void find_prefix(benchmark::State& state, std::int32_t block_size, std::int32_t others) {
  constexpr std::int32_t tokens = 8192;
  auto const per_prompt = tokens / block_size;
  strata::paged_options options;
  options.max_sequences = 1;
  options.max_tokens = tokens + 1;
  options.block_size = block_size;
  options.k_blocks = options.v_blocks = (others + 1) * per_prompt + per_prompt;
  auto storage = checked(storage_type::make(model(1), options));
  auto index =
      checked(strata::prefix_index<storage_type>::make(storage, {(others + 1) * per_prompt, 1}));
  auto const plan = plan_of(1);
  std::vector<std::int32_t> prompt(tokens + 1);
  for (std::int32_t p = 0; p <= others; ++p) {
    for (std::size_t t = 0; t < prompt.size(); ++t)
      prompt[t] =
          static_cast<std::int32_t>(t * 7919 + static_cast<std::size_t>(p) * 104729) % 151936;
    auto const id = checked(storage.open(plan));
    grow(storage, id, tokens);
    checked(index.insert(storage, id, prompt, {}));
    require(storage.close(id));
  }
  for (auto _ : state) {
    auto const found = index.find(prompt, plan, {});
    if (found.num_tokens != tokens) return state.SkipWithError("the prompt was not found");
    benchmark::DoNotOptimize(found);
  }
  state.counters["per_block"] = benchmark::Counter(
      per_prompt, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

/// From all layers to so many leaders, 32K tokens.
void shrink(benchmark::State& state, std::int32_t leaders, std::int32_t block_size) {
  constexpr std::int32_t tokens = 32768;
  auto const full = plan_of(layers), fewer = plan_of(leaders);
  for (auto _ : state) {
    state.PauseTiming();
    auto storage = std::make_unique<storage_type>(make_storage(tokens, block_size));
    auto const id = checked(storage->open(full));
    grow(*storage, id, tokens);
    state.ResumeTiming();
    require(storage->shrink(id, fewer).state());
    state.PauseTiming();
    storage.reset();
    state.ResumeTiming();
  }
  auto const freed = 2.0 * (layers - leaders) * tokens / block_size;
  state.counters["per_block"] = benchmark::Counter(
      freed, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

/// 2048 tokens of 9 leaders, heads of 1024 numbers: 75 MB, to memory that is warm.
void snapshot(benchmark::State& state, bool restores) {
  auto storage = make_storage(2048, 16, 1024, 9);
  sequence_id ids[] = {checked(storage.open(plan_of(9)))};
  grow(storage, ids[0], 2048);
  std::vector<std::uint64_t> memory(
      static_cast<std::size_t>(checked(strata::snapshot_bytes(storage, ids)) + 7) / 8);
  auto const bytes = std::as_writable_bytes(std::span(memory));
  auto const save = [&] {
    strata::memory_sink sink(bytes);
    require(strata::save(storage, ids, {1}, sink));
  };
  save();
  for (auto _ : state) {
    if (!restores) {
      save();
      continue;
    }
    sequence_id got[1];
    checked(strata::restore(storage, bytes, {1}, got));
    state.PauseTiming();
    require(storage.close(got[0]));
    state.ResumeTiming();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes.size()));
}

constexpr std::int64_t tensor_bytes = std::int64_t{2048} * 1024 * 2, num_tensors = 2 * 9;

/// The same 75 MB to a tier of warm memory, or back; and what copies of as many bytes take.
void tier(benchmark::State& state, bool reloads, std::int32_t block_size) {
  auto storage = make_storage(2048, block_size, 1024, 9);
  auto tier = checked(strata::host_tier<>::make(storage, {std::int64_t{1} << 27, 1}));
  auto id = checked(storage.open(plan_of(9)));
  grow(storage, id, 2048);
  id = checked(tier.reload(storage, checked(tier.offload(storage, id))));
  for (auto _ : state) {
    if (reloads) state.PauseTiming();
    auto const away = checked(tier.offload(storage, id));
    if (reloads)
      state.ResumeTiming();
    else
      state.PauseTiming();
    id = checked(tier.reload(storage, away));
    if (!reloads) state.ResumeTiming();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * num_tensors *
                          tensor_bytes);
}
void copy(benchmark::State& state) {
  strata::detail::large_memory from, to;  // pages as large as a storage's
  for (auto* memory : {&from, &to}) {
    require(memory->allocate(num_tensors * tensor_bytes));
    std::memset(memory->data(), 1, static_cast<std::size_t>(memory->size()));
  }
  for (auto _ : state) {
    for (std::int64_t i = 0; i < num_tensors; ++i)
      std::memcpy(to.data() + i * tensor_bytes, from.data() + i * tensor_bytes,
                  static_cast<std::size_t>(tensor_bytes));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * from.size());
}

template <class Body>
void add(std::string const& name, Body const& body) {
  benchmark::RegisterBenchmark(name.c_str(), body);
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (std::int32_t const leaders : {1, 9, 36}) {
    auto const suffix = "/leaders:" + std::to_string(leaders);
    add("append/tokens:1" + suffix, [=](auto& state) { append(state, leaders, 1); });
    add("append/tokens:16" + suffix, [=](auto& state) { append(state, leaders, 16); });
    for (std::int32_t const block_size : {16, 64, 256})
      add("fork/tokens:8192" + suffix + "/block_size:" + std::to_string(block_size),
          [=](auto& state) { fork(state, leaders, block_size); });
  }
  for (std::int32_t const block_size : {16, 64})
    for (std::int32_t const others : {0, 63})
      add("find_prefix/tokens:8192/block_size:" + std::to_string(block_size) +
              "/others:" + std::to_string(others),
          [=](auto& state) { find_prefix(state, block_size, others); });
  for (std::int32_t const block_size : {16, 64, 256})
    add("shrink/tokens:32768/leaders:36to9/block_size:" + std::to_string(block_size),
        [=](auto& state) { shrink(state, 9, block_size); });
  add("snapshot/save", [](auto& state) { snapshot(state, false); });
  add("snapshot/restore", [](auto& state) { snapshot(state, true); });
  for (std::int32_t const block_size : {16, 256}) {
    auto const suffix = "/block_size:" + std::to_string(block_size);
    add("tier/offload" + suffix, [=](auto& state) { tier(state, false, block_size); });
    add("tier/reload" + suffix, [=](auto& state) { tier(state, true, block_size); });
  }
  add("tier/memcpy", copy);
  return session.run();
}
