// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What every benchmark program shares: its command line, what the machine can do at best, measured
// in the same run, and counters as fractions of that.
//
//     bench/record.py bench/results/decode.json -- build/all/bench/decode --threads=2
//         --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//         --benchmark_report_aggregates_only=true
//         --benchmark_out={} --benchmark_out_format=json
//
// runs one and notes command, commit and machine in the file.
// All flags are Google Benchmark's but --threads (all of the machine's by default).
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/thread_pool.hpp>

#include "limits.hpp"

namespace bench {

inline void require(strata::status const& s) {
  if (s.ok()) return;
  std::fprintf(stderr, "%s\n", strata::describe(s).c_str());
  std::exit(1);
}

/// Threads, and what they can do at best.
struct team {
  strata::thread_pool pool;
  machine_limits limits;

  explicit team(std::int32_t threads) : pool(threads), limits(pool) {}
};

/// The program's run: threads, measured limits, and what goes into the recorded context.
class session {
 public:
  session(int argc, char** argv) : command_(join(argc, argv)) {
    auto const threads = take_threads(argc, argv);
    for (int i = 1; i < argc; ++i)
      if (std::strncmp(argv[i], "--benchmark_out=", 16) == 0) writes_file_ = true;
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) std::exit(1);
    teams_.push_back(std::make_unique<team>(threads));
    benchmark::AddCustomContext("isa", strata::cpu::isa_name());
    benchmark::AddCustomContext("compiler", __VERSION__);
    benchmark::AddCustomContext("cpu", cpu_name());
    benchmark::AddCustomContext("command", command_);
    benchmark::AddCustomContext("threads", std::to_string(pool().num_shares()));
    benchmark::AddCustomContext("huge_pages",
                                first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
    note_limits("", limits());
  }
  session(session const&) = delete;
  session& operator=(session const&) = delete;

  /// Of --threads.
  strata::thread_pool& pool() { return teams_.front()->pool; }
  machine_limits const& limits() const { return teams_.front()->limits; }

  /// A team of so many threads, with limits of its own, measured when first asked for. It may have
  /// fewer threads where the system lets no more start.
  bench::team& team_of(std::int32_t threads) {
    for (auto const& t : teams_)
      if (t->pool.num_shares() == threads) return *t;
    teams_.push_back(std::make_unique<bench::team>(threads));
    note_limits("threads_" + std::to_string(threads) + "_", teams_.back()->limits);
    return *teams_.back();
  }

  /// `bytes` read per iteration: bytes_per_second, and the fraction of what the machine reads.
  void count_bytes(benchmark::State& state, double bytes) const {
    count(state, "bytes_per_second", bytes);
    count(state, "of_read_bandwidth", bytes / limits().read_bytes);
  }
  /// The work of an iteration under all of a team's limits: seconds, the seconds that the machine
  /// would need at best, and the fraction of the one in the other.
  static void count_roofline(benchmark::State& state, machine_limits const& limits,
                             machine_work const& work) {
    auto const roofline = limits.seconds(work);
    state.counters["seconds"] = benchmark::Counter(
        1, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
    state.counters["roofline_seconds"] = roofline;
    count(state, "bytes_per_second", work.bytes);
    state.counters["machine_reads"] = limits.read_bytes;
    count(state, "fraction_of_roofline", roofline);
  }
  /// `flops` per iteration: FLOPS, and the fraction of the machine's peak.
  void count_flops(benchmark::State& state, double flops) const {
    count(state, "flops_per_second", flops);
    count(state, "of_fma_peak", flops / limits().fma_flops);
  }

  /// Runs what was registered. Reporters replace Google Benchmark's own; `file` is left alone where
  /// no file was asked for.
  int run(benchmark::BenchmarkReporter* display = nullptr,
          benchmark::BenchmarkReporter* file = nullptr) {
    std::printf("isa %s, %d threads, reads %.1f GB/s, multiplies and adds %.1f GFLOP/s\n",
                strata::cpu::isa_name(), pool().num_shares(), limits().read_bytes * 1e-9,
                limits().fma_flops * 1e-9);
    benchmark::RunSpecifiedBenchmarks(display, writes_file_ ? file : nullptr);
    benchmark::Shutdown();
    return 0;
  }

 private:
  static void count(benchmark::State& state, char const* name, double per_iteration) {
    state.counters[name] =
        benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate);
  }

  static void note_limits(std::string const& prefix, machine_limits const& of) {
    auto const note = [&](char const* name, double value) {
      benchmark::AddCustomContext(prefix + name, std::to_string(value));
    };
    note("read_bytes_per_second", of.read_bytes);
    note("fma_flops_per_second", of.fma_flops);
    note("bf16_dot_flops_per_second", of.bf16_flops);
    note("f16_conversions_per_second", of.f16_conversions);
    note("int8_conversions_per_second", of.int8_conversions);
  }

  static std::string first_line(char const* path) {
    std::string line;
    std::getline(std::ifstream(path) >> std::ws, line);
    return line;
  }

  static std::string join(int argc, char** argv) {
    std::string command = argv[0];
    for (int i = 1; i < argc; ++i) command += std::string(" ") + argv[i];
    return command;
  }

  /// Takes --threads out of the arguments.
  static std::int32_t take_threads(int& argc, char** argv) {
    std::int32_t threads = 0;
    int kept = 0;
    for (int i = 0; i < argc; ++i)
      if (std::strncmp(argv[i], "--threads=", 10) == 0)
        threads = std::atoi(argv[i] + 10);
      else
        argv[kept++] = argv[i];
    argc = kept;
    return threads;
  }

  static std::string cpu_name() {
    std::string name = "unknown";
    if (auto* const file = std::fopen("/proc/cpuinfo", "r"); file != nullptr) {
      char line[256];
      while (std::fgets(line, sizeof line, file) != nullptr)
        if (std::strncmp(line, "model name", 10) == 0) {
          name = std::strchr(line, ':') + 2;
          name.pop_back();
          break;
        }
      std::fclose(file);
    }
    return name;
  }

  std::string command_;
  bool writes_file_ = false;
  std::vector<std::unique_ptr<team>> teams_;  // the first is that of --threads
};

}  // namespace bench
