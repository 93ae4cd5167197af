// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How near is attention on a device to what the device can do? Calls in captured graphs, events
// between them, random K/V that are never found in the second-level cache:
//
//     large     one row of each of many sequences, K/V of 512 MB and more, in one piece and in
//               blocks
//     single    one row of one sequence
//     ragged    lengths from 128 to 32K beside equal ones of the same total
//     int8      K and V of 8 bits
//     group     1 and 8 query heads per KV head
//     head_dim  heads of 64
//     split     splits of one size, which keep a sequence's bits, beside those that fill the device
//     draft     a few rows of each sequence
//     prefill   all rows of a sequence, causal
//     backward  the same, its gradients, written and added to those of the source, and with dQ
//               added up by atomics; as soon as the kernel has one
//
// Queries are of bfloat16. seconds: per call. fraction_of_read: bytes of K and V per second / those
// that the device reads. fraction_of_roofline: the seconds that reads or products, as measured in
// the same run (limits.cuh), would take at best / those. ratio_to_<other>: the median of the
// other's seconds / one's own.
//
// bench/peers/torch_cuda_attention.py puts PyTorch beside it; session.cuh says how a run is
// recorded.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../codec_name.hpp"
#include "../ratios.hpp"
#include "attention_call.cuh"
#include "session.cuh"

namespace {

using bench::attention_case, bench::attention_shape;
using strata::bf16_codec, strata::int8_codec;

/// A case that a case is compared with.
struct beside {
  char const* counter;
  attention_case other;
};

class cases {
 public:
  explicit cases(bench::device_session& session) : session_(session) {}

  bench::ratio_table const& ratios() const { return ratios_; }

  template <class Codec>
  void add(attention_case const& c, std::vector<beside> const& others = {}) {
    auto const name = c.name(kernel, bench::codec_name<Codec>);
    for (auto const& [counter, other] : others)
      ratios_.add(name, counter, other.name(kernel, bench::codec_name<Codec>));
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=, this](benchmark::State& state) { run<Codec>(state, name, c); })
        ->UseManualTime()
        ->Iterations(5)
        ->Unit(benchmark::kMicrosecond);
  }
  void against(attention_case const& c, char const* codec, char const* counter, char const* other) {
    ratios_.add(c.name(kernel, codec), counter, c.name(kernel, other));
  }

 private:
  static constexpr char const* kernel = "strata";

  template <class Codec>
  void run(benchmark::State& state, std::string const& name, attention_case const& c) {
    auto const stream = session_.stream();
    auto const call = c.backward() ? bench::make_backward(c, stream, session_.l2_bytes())
                                   : bench::make_forward<Codec>(c, stream, session_.l2_bytes());
    if (call == nullptr) return state.SkipWithError("the device has no memory for it");
    if (auto const apart = distance_once(name, *call, stream); !(apart < 0.02)) {
      auto const message = "a row differs by " + std::to_string(apart) + " of its length";
      return state.SkipWithError(message.c_str());  // a benchmark of a wrong answer is none
    }
    bench::device_work const work{c.bytes<Codec>(), c.flops()};
    auto const calls = calls_of(call->sets(), session_.limits().seconds(work));
    bench::captured_graph const graph(stream, [&] {
      for (std::int64_t i = 0; i < calls; ++i) call->enqueue(i % call->sets());
    });
    bench::time_graph(state, stream, graph, calls);
    session_.count(state, work);
    if (c.shape.rows > 1) session_.count_products(state, work.flops);
    state.counters["kv_mb"] =
        2e-6 * c.tokens() * c.shape.kv_heads *
        static_cast<double>(Codec::row_bytes(c.shape.dim) + Codec::scale_bytes(c.shape.dim));
    state.counters["sets"] = static_cast<double>(call->sets());
    state.counters["kernels"] = static_cast<double>(graph.nodes()) / static_cast<double>(calls);
  }

  /// All sets in turn, as often as makes a graph long beside what an event is off.
  static std::int64_t calls_of(std::int64_t sets, double least_seconds) {
    constexpr double enough = 200e-6;
    auto const turns = enough / (static_cast<double>(sets) * least_seconds);
    return sets * std::max<std::int64_t>(1, static_cast<std::int64_t>(turns));
  }

  /// Of a case's first run from what it should be.
  static double distance_once(std::string const& name, bench::device_call& call,
                              cudaStream_t stream) {
    static std::map<std::string, double> of_case;
    auto const found = of_case.find(name);
    if (found != of_case.end()) return found->second;
    call.enqueue(0);
    bench::require(cudaStreamSynchronize(stream));
    return of_case[name] = call.distance();
  }

  bench::device_session& session_;
  bench::ratio_table ratios_;
};

void add_decode(cases& all) {
  attention_shape const large[] = {{.context = 4096, .batch = 32},
                                   {.context = 16384, .batch = 8},
                                   {.context = 32768, .batch = 8},
                                   {.context = 8192, .batch = 128}};
  for (auto shape : large) {
    attention_case const contiguous{"large", shape};
    all.add<bf16_codec>(contiguous);
    for (std::int32_t const block : {16, 64}) {
      shape.block = block;
      all.add<bf16_codec>({"large", shape}, {{"ratio_to_contiguous", contiguous}});
    }
  }
  for (std::int32_t const context : {1024, 4096, 16384, 32768})
    all.add<bf16_codec>({"single", {.context = context}});
}

void add_ragged(cases& all) {
  attention_case const ragged{"ragged", {.context = 32768, .batch = 64, .block = 64}, true};
  attention_case uniform = ragged;
  uniform.log_uniform = false;
  uniform.shape.context = static_cast<std::int32_t>(ragged.tokens() / ragged.shape.batch + 0.5);
  all.add<bf16_codec>(uniform);
  all.add<bf16_codec>(ragged, {{"ratio_to_uniform", uniform}});
}

void add_variants(cases& all) {
  for (attention_shape const& shape :
       {attention_shape{.context = 16384, .batch = 8}, attention_shape{.context = 16384}}) {
    attention_case const c{"int8", shape};
    all.add<bf16_codec>(c);
    all.add<int8_codec>(c);
    all.against(c, "int8", "ratio_to_bf16", "bf16");
  }
  for (std::int32_t const kv_heads : {32, 4})
    for (std::int32_t const batch : {8, 1})
      all.add<bf16_codec>({"group", {.kv_heads = kv_heads, .context = 16384, .batch = batch}});
  for (std::int32_t const batch : {8, 1})
    all.add<bf16_codec>({"head_dim", {.dim = 64, .context = 16384, .batch = batch}});
  for (std::int32_t const batch : {8, 1}) {
    attention_case const adaptive{"split", {.context = 16384, .batch = batch}};
    all.add<bf16_codec>(adaptive);
    for (std::int32_t const keys : {256, 512, 1024}) {
      attention_case fixed = adaptive;
      fixed.split_keys = keys;
      all.add<bf16_codec>(fixed, {{"ratio_to_adaptive", adaptive}});
    }
  }
  for (std::int32_t const batch : {8, 1}) {
    attention_case const one_row{"draft", {.context = 16384, .batch = batch}};
    all.add<bf16_codec>(one_row);
    attention_case rows = one_row;
    rows.shape.rows = 4;
    all.add<bf16_codec>(rows, {{"ratio_to_one_row", one_row}});
  }
}

void add_whole_sequences(cases& all) {
  for (std::int32_t const length : {2048, 4096, 8192, 16384})
    all.add<bf16_codec>({"prefill", {.context = length, .rows = length}});
  if constexpr (bench::has_backward<bf16_codec>) {
    for (std::int32_t const length : {2048, 4096, 8192, 16384}) {
      attention_case const writes{"backward", {.context = length, .rows = length}};
      all.add<bf16_codec>(writes);
      attention_case adds = writes;
      adds.add_k = adds.add_v = true;
      all.add<bf16_codec>(adds, {{"ratio_to_written", writes}});
      attention_case atomic = writes;
      atomic.deterministic = false;
      all.add<bf16_codec>(atomic, {{"ratio_to_deterministic", writes}});
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::device_session session(argc, argv);
  cases all(session);
  add_decode(all);
  add_ragged(all);
  add_variants(all);
  add_whole_sequences(all);
  bench::ratio_reporter<benchmark::ConsoleReporter> display(all.ratios(),
                                                            benchmark::ConsoleReporter::OO_Tabular);
  bench::ratio_reporter<benchmark::JSONReporter> file(all.ratios());
  return session.run(&display, &file);
}
