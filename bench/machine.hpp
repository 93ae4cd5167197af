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

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/thread_pool.hpp>

namespace bench {

/// Random, because a memory of zeros is one page read again and again, and zero factors are easy.
inline std::vector<float> random_floats(std::int64_t count, std::uint32_t seed) {
  std::minstd_rand engine(seed + 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (auto& x : values) x = static_cast<float>(engine()) * 0x1p-30f - 1.0f;
  return values;
}

/// Memory that begins at a cache line.
class aligned_memory {
 public:
  explicit aligned_memory(std::int64_t bytes)
      : bytes_(static_cast<std::size_t>(bytes)),
        data_(static_cast<std::byte*>(std::aligned_alloc(64, (bytes_ + 127) / 64 * 64))) {}
  aligned_memory(aligned_memory const&) = delete;
  aligned_memory& operator=(aligned_memory const&) = delete;
  ~aligned_memory() { std::free(data_); }
  std::span<std::byte> get() const { return {data_, bytes_}; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

inline void require(strata::status const& s) {
  if (s.ok()) return;
  std::fprintf(stderr, "%s\n", strata::describe(s).c_str());
  std::exit(1);
}

/// Best of five.
template <class Body>
double best_seconds(Body&& body) {
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    auto const start = std::chrono::steady_clock::now();
    body();
    std::chrono::duration<double> const passed = std::chrono::steady_clock::now() - start;
    if (passed.count() < best) best = passed.count();
  }
  return best;
}

/// Bytes per second that all threads together read from memory: 8 sums over 512 MiB, 16 times a
/// last-level cache of 32 MiB.
inline double read_bandwidth(strata::thread_pool& pool) {
  using v = strata::cpu::detail::lanes<float>;
  std::int64_t const count = std::int64_t{1} << 27;
  auto const data = random_floats(count, 7);
  std::vector<float> sums(static_cast<std::size_t>(pool.num_shares()));
  auto const seconds = best_seconds([&] {
    (void)pool.run([&](strata::share part) noexcept -> strata::status {
      constexpr std::int64_t step = 8 * v::count;
      v::vec sum[8] = {};
      for (auto i = part.begin(count / step) * step; i < part.end(count / step) * step; i += step)
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) sum[j] += v::load(data.data() + i + j * v::count);
      for (int j = 1; j < 8; ++j) sum[0] += sum[j];
      sums[static_cast<std::size_t>(part.ith)] = sum[0][0];
      return {};
    });
    benchmark::DoNotOptimize(sums.data());
  });
  return static_cast<double>(count) * sizeof(float) / seconds;
}

/// Floating-point operations per second of all threads: 12 chains of vector multiply-adds in
/// registers, enough for 2 ports x 4 cycles.
inline double fma_peak(strata::thread_pool& pool) {
  using v = strata::cpu::detail::lanes<float>;
  constexpr std::int64_t steps = 20'000'000;
  auto const start = random_floats(12, 8);
  std::vector<float> ends(static_cast<std::size_t>(pool.num_shares()));
  auto const seconds = best_seconds([&] {
    (void)pool.run([&](strata::share part) noexcept -> strata::status {
      v::vec x[12];
      for (int j = 0; j < 12; ++j) x[j] = v::all(start[static_cast<std::size_t>(j)]);
      auto const factor = v::all(0.999f), term = v::all(0.001f);
      for (std::int64_t i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < 12; ++j) x[j] = x[j] * factor + term;
      for (int j = 1; j < 12; ++j) x[0] += x[j];
      ends[static_cast<std::size_t>(part.ith)] = x[0][0];
      return {};
    });
    benchmark::DoNotOptimize(ends.data());
  });
  return 2.0 * 12 * v::count * static_cast<double>(steps) * pool.num_shares() / seconds;
}

/// The program's run: threads, measured limits, and what goes into the recorded context.
class session {
 public:
  session(int argc, char** argv) : command_(join(argc, argv)), pool_(take_threads(argc, argv)) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) std::exit(1);
    bandwidth_ = read_bandwidth(pool_);
    peak_ = fma_peak(pool_);
    benchmark::AddCustomContext("isa", strata::cpu::isa_name());
    benchmark::AddCustomContext("compiler", __VERSION__);
    benchmark::AddCustomContext("cpu", cpu_name());
    benchmark::AddCustomContext("command", command_);
    benchmark::AddCustomContext("threads", std::to_string(pool_.num_shares()));
    benchmark::AddCustomContext("read_bytes_per_second", std::to_string(bandwidth_));
    benchmark::AddCustomContext("fma_flops_per_second", std::to_string(peak_));
  }
  session(session const&) = delete;
  session& operator=(session const&) = delete;

  strata::thread_pool& pool() { return pool_; }

  /// `bytes` read per iteration: bytes_per_second, and the fraction of what the machine reads.
  void count_bytes(benchmark::State& state, double bytes) const {
    count(state, "bytes_per_second", bytes);
    count(state, "of_read_bandwidth", bytes / bandwidth_);
  }
  /// `flops` per iteration: FLOPS, and the fraction of the machine's peak.
  void count_flops(benchmark::State& state, double flops) const {
    count(state, "flops_per_second", flops);
    count(state, "of_fma_peak", flops / peak_);
  }

  /// Runs what was registered.
  int run() {
    std::printf("isa %s, %d threads, reads %.1f GB/s, multiplies and adds %.1f GFLOP/s\n",
                strata::cpu::isa_name(), pool_.num_shares(), bandwidth_ * 1e-9, peak_ * 1e-9);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
  }

 private:
  static void count(benchmark::State& state, char const* name, double per_iteration) {
    state.counters[name] =
        benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate);
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
  strata::thread_pool pool_;
  double bandwidth_ = 0, peak_ = 0;
};

}  // namespace bench
