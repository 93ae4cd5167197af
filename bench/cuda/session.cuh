// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the programs of this folder share: their command line, what the device can do at best, and
// counters as fractions of that.
//
//     bench/record.py bench/results/cuda_attention.json -- build/cuda/bench/cuda/attention
//         --benchmark_filter=attention/large --benchmark_repetitions=5
//         --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true
//         --benchmark_out={} --benchmark_out_format=json
//
// Without a device a program says so and exits with 77, unless it is only to list its cases.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include <cuda_runtime.h>

#include "limits.cuh"

namespace bench {

class device_session {
 public:
  device_session(int argc, char** argv) : command_(join(argc, argv)) {
    bool lists = false;
    for (int i = 1; i < argc; ++i) {
      lists |= std::strncmp(argv[i], "--benchmark_list_tests", 22) == 0 &&
               std::strcmp(argv[i], "--benchmark_list_tests=false") != 0;
      writes_file_ |= std::strncmp(argv[i], "--benchmark_out=", 16) == 0;
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) std::exit(1);
    if (!lists) find_device();
  }
  device_session(device_session const&) = delete;
  device_session& operator=(device_session const&) = delete;

  cudaStream_t stream() const { return stream_; }
  std::int64_t l2_bytes() const { return l2_bytes_; }
  device_limits const& limits() const { return *limits_; }

  /// The work of an iteration under the device's limits.
  void count(benchmark::State& state, device_work const& work) const {
    auto const roofline = limits().seconds(work);
    state.counters["seconds"] = benchmark::Counter(
        1, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
    state.counters["roofline_seconds"] = roofline;
    state.counters["bytes"] = work.bytes;
    rate(state, "fraction_of_roofline", roofline);
    rate(state, "GB_per_second", work.bytes * 1e-9);
    rate(state, "fraction_of_read", work.bytes / limits().read_bytes);
    state.counters["device_reads"] = limits().read_bytes;
  }
  void count_products(benchmark::State& state, double flops) const {
    rate(state, "TFLOP_per_second", flops * 1e-12);
    if (limits().gemm_flops > 0) rate(state, "fraction_of_gemm", flops / limits().gemm_flops);
  }
  static void rate(benchmark::State& state, char const* name, double per_iteration) {
    state.counters[name] =
        benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate);
  }

  /// Runs what was registered. Reporters replace Google Benchmark's own; `file` is left alone where
  /// no file was asked for.
  int run(benchmark::BenchmarkReporter* display = nullptr,
          benchmark::BenchmarkReporter* file = nullptr) {
    benchmark::RunSpecifiedBenchmarks(display, writes_file_ ? file : nullptr);
    benchmark::Shutdown();
    return 0;
  }

 private:
  void find_device() {
    int count = 0;
    if (auto const found = cudaGetDeviceCount(&count); found != cudaSuccess || count == 0) {
      std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(found));
      std::exit(77);
    }
    cudaDeviceProp device;
    require(cudaGetDeviceProperties(&device, 0));
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    l2_bytes_ = device.l2CacheSize;
    limits_ = std::make_unique<device_limits>(stream_, device.multiProcessorCount);
    print(device.name);
    note(device);
  }

  void print(char const* name) const {
    auto const& l = limits();
    std::printf(
        "%s: reads %.0f GB/s, copies %.0f GB/s, L2 of %.0f MiB reads %.0f, %.0f and %.0f GB/s of "
        "16, 32 and 45 MB, bf16 products %.0f TFLOP/s, a kernel every %.2f us\n",
        name, l.read_bytes * 1e-9, l.copy_bytes * 1e-9, static_cast<double>(l2_bytes_) / (1 << 20),
        l.l2_16mb * 1e-9, l.l2_32mb * 1e-9, l.l2_45mb * 1e-9, l.gemm_flops * 1e-12, l.launch * 1e6);
    std::fflush(stdout);
  }

  void note(cudaDeviceProp const& device) const {
    int driver = 0, runtime = 0;
    require(cudaDriverGetVersion(&driver));
    require(cudaRuntimeGetVersion(&runtime));
    auto const add = [](char const* name, double value) {
      char text[32];
      std::snprintf(text, sizeof text, "%.9g", value);
      benchmark::AddCustomContext(name, text);
    };
    benchmark::AddCustomContext("device", device.name);
    benchmark::AddCustomContext("command", command_);
    benchmark::AddCustomContext("compiler", __VERSION__);
    add("multiprocessors", device.multiProcessorCount);
    add("l2_bytes", static_cast<double>(l2_bytes_));
    add("cuda_driver", driver);
    add("cuda_runtime", runtime);
    add("read_bytes_per_second", limits().read_bytes);
    add("copy_bytes_per_second", limits().copy_bytes);
    add("l2_16mb_bytes_per_second", limits().l2_16mb);
    add("l2_32mb_bytes_per_second", limits().l2_32mb);
    add("l2_45mb_bytes_per_second", limits().l2_45mb);
    add("gemm_bf16_flops_per_second", limits().gemm_flops);
    add("launch_seconds", limits().launch);
  }

  static std::string join(int argc, char** argv) {
    std::string command = argv[0];
    for (int i = 1; i < argc; ++i) command += std::string(" ") + argv[i];
    return command;
  }

  std::string command_;
  bool writes_file_ = false;
  cudaStream_t stream_ = nullptr;
  std::int64_t l2_bytes_ = 0;
  std::unique_ptr<device_limits> limits_;
};

/// Runs a registered case: `calls` calls per captured graph, a graph per iteration, the seconds of
/// a call reported.
inline void time_graph(benchmark::State& state, cudaStream_t stream, captured_graph const& graph,
                       std::int64_t calls) {
  auto const seconds = seconds_of(stream, state.max_iterations, [&] { graph.launch(); });
  std::size_t i = 0;
  for (auto _ : state) state.SetIterationTime(seconds[i++] / static_cast<double>(calls));
}

}  // namespace bench
