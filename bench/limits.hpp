// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a machine can do at best, measured: the roofs under which the benchmarks' figures stand.
#pragma once

#include <benchmark/benchmark.h>

#if defined(__AVX512BF16__) || defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <span>
#include <vector>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/detail/large_memory.hpp>
#include <strata/thread_pool.hpp>

#include "machine_work.hpp"
#include "random_floats.hpp"

namespace bench {

/// Memory as the library's caches have it: all that is measured, ours and others', lies in huge
/// pages where the system gives them, and so does what the roofline is measured on.
class aligned_memory {
 public:
  explicit aligned_memory(std::int64_t bytes) {
    if (memory_.allocate(bytes + 64).ok()) return;
    std::fprintf(stderr, "out of memory\n");
    std::exit(1);
  }
  std::span<std::byte> get() const {
    return {memory_.data(), static_cast<std::size_t>(memory_.size() - 64)};
  }

 private:
  strata::detail::large_memory memory_;
};

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

/// How often per second all threads together do what one call of `work(share)` does `count` times.
/// What it returns is kept, so that it is computed.
template <class Work>
double rate_of(strata::thread_pool& pool, double count, Work const& work) {
  std::vector<float> ends(static_cast<std::size_t>(pool.num_shares()));
  auto const seconds = best_seconds([&] {
    (void)pool.run([&](strata::share part) noexcept -> strata::status {
      ends[static_cast<std::size_t>(part.ith)] = work(part);
      return {};
    });
    benchmark::DoNotOptimize(ends.data());
  });
  return count / seconds;
}

/// Bytes of the last-level cache: 32 MiB where the system does not say.
inline std::int64_t last_level_cache() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  if (auto const bytes = ::sysconf(_SC_LEVEL3_CACHE_SIZE); bytes > 0) return bytes;
#endif
  return std::int64_t{32} << 20;
}

/// Bytes that, read in turn, come from memory: 4 last-level caches, and at least 128 MiB.
inline std::int64_t memory_beyond_caches() {
  return std::max(std::int64_t{128} << 20, 4 * last_level_cache());
}

/// Bytes to read in one go that caches hold next to nothing of: at least 512 MiB.
inline std::int64_t memory_to_stream() {
  return std::max(std::int64_t{512} << 20, memory_beyond_caches());
}

/// Memory to see how fast it is read.
class read_probe {
 public:
  explicit read_probe(std::int64_t bytes = memory_to_stream()) : memory_(bytes) {
    // Megabytes that differ from one another by where they begin: to draw each takes seconds.
    auto const numbers = random_floats((1 << 18) + 7919, 7);
    for (std::int64_t i = 0; i < count(); i += 1 << 18)
      std::copy_n(numbers.data() + i / (1 << 18) * 31 % 7919,
                  std::min<std::int64_t>(1 << 18, count() - i), data() + i);
  }

  /// Bytes per second that all threads together read, in 8 sums, each its part `rounds` times.
  double rate(strata::thread_pool& pool, std::int64_t rounds = 1) const {
    using v = strata::cpu::detail::lanes<float>;
    constexpr std::int64_t step = 8 * v::count;
    auto const bytes = static_cast<double>(rounds) * static_cast<double>(memory_.get().size());
    auto const steps = count() / step;
    return rate_of(pool, bytes, [&](strata::share part) {
      v::vec sum[8] = {};
      for (std::int64_t round = 0; round < rounds; ++round)
        for (auto i = part.begin(steps) * step; i < part.end(steps) * step; i += step)
#pragma GCC unroll 8
          for (int j = 0; j < 8; ++j) sum[j] += v::load(data() + i + j * v::count);
      for (int j = 1; j < 8; ++j) sum[0] += sum[j];
      return sum[0][0];
    });
  }

 private:
  float* data() const { return reinterpret_cast<float*>(memory_.get().data()); }
  std::int64_t count() const {
    return static_cast<std::int64_t>(memory_.get().size() / sizeof(float));
  }

  aligned_memory memory_;
};

/// Floating-point operations per second of all threads: 12 chains of vector multiply-adds in
/// registers, enough for 2 ports x 4 cycles.
inline double fma_peak(strata::thread_pool& pool, std::int64_t steps) {
  using v = strata::cpu::detail::lanes<float>;
  auto const start = random_floats(12, 8);
  auto const flops = 2.0 * 12 * v::count * static_cast<double>(steps) * pool.num_shares();
  return rate_of(pool, flops, [&](strata::share) {
    v::vec x[12];
    for (int j = 0; j < 12; ++j) x[j] = v::all(start[static_cast<std::size_t>(j)]);
    auto const factor = v::all(0.999f), term = v::all(0.001f);
    for (std::int64_t i = 0; i < steps; ++i)
#pragma GCC unroll 12
      for (int j = 0; j < 12; ++j) x[j] = x[j] * factor + term;
    for (int j = 1; j < 12; ++j) x[0] += x[j];
    return x[0][0];
  });
}

/// The same of dot products of bfloat16 pairs into float (vdpbf16ps); the multiply-adds of float
/// where there are none.
inline double bf16_dot_peak(strata::thread_pool& pool, std::int64_t steps) {
#if defined(__AVX512BF16__)
  auto const start = random_floats(32, 9);
  auto const flops = 4.0 * 16 * 12 * static_cast<double>(steps) * pool.num_shares();
  return rate_of(pool, flops, [&](strata::share) {
    auto const floats = _mm512_loadu_ps(start.data());
    auto const pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(start.data() + 16), floats);
    __m512 sum[12];
    for (auto& s : sum) s = floats;
    for (std::int64_t i = 0; i < steps; ++i)
#pragma GCC unroll 12
      for (int j = 0; j < 12; ++j) sum[j] = _mm512_dpbf16_ps(sum[j], pairs, pairs);
    for (int j = 1; j < 12; ++j) sum[0] += sum[j];
    return sum[0][0];
  });
#else
  return fma_peak(pool, steps);
#endif
}

/// Elements per second of all threads that `convert(bytes)` makes floats of: a vector of 16 from
/// every 16 * Size bytes of the first-level cache. What is made is folded by `xor`, which no
/// conversion waits for.
template <std::int64_t Size, class Convert>
double conversion_rate(strata::thread_pool& pool, Convert const& convert) {
  constexpr std::int64_t steps = 400'000, vectors = 64;
  auto const numbers = random_floats(vectors * 16 * Size / 4, 10);
  auto const* const bytes = reinterpret_cast<std::byte const*>(numbers.data());
  auto const elements = 16.0 * vectors * static_cast<double>(steps) * pool.num_shares();
  return rate_of(pool, elements, [&](strata::share) {
    using bits = decltype(convert(bytes));
    bits fold[4] = {};
    for (std::int64_t i = 0; i < steps; ++i) {
      for (std::int64_t j = 0; j < vectors; j += 4)
#pragma GCC unroll 4
        for (std::int64_t k = 0; k < 4; ++k) fold[k] ^= convert(bytes + (j + k) * 16 * Size);
      benchmark::DoNotOptimize(fold);  // else an even number of equal rounds folds to nothing
    }
    return static_cast<float>((fold[0] ^ fold[1] ^ fold[2] ^ fold[3])[0]);
  });
}

#if defined(__AVX512F__)
/// 16 floats' bits.
typedef std::int32_t float_bits __attribute__((vector_size(64)));

// The forms with a mask: of the plain ones g++ 12 warns that they read what was never written.
inline double f16_conversion_rate(strata::thread_pool& pool) {
  return conversion_rate<2>(pool, [](std::byte const* from) {
    auto const halves = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(from));
    return std::bit_cast<float_bits>(_mm512_maskz_cvtph_ps(0xFFFF, halves));
  });
}
inline double int8_conversion_rate(strata::thread_pool& pool) {
  return conversion_rate<1>(pool, [](std::byte const* from) {
    auto const numbers = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from));
    auto const integers = _mm512_maskz_cvtepi8_epi32(0xFFFF, numbers);
    return std::bit_cast<float_bits>(_mm512_maskz_cvtepi32_ps(0xFFFF, integers));
  });
}
#else
/// Not measured without AVX-512: no bound.
inline double f16_conversion_rate(strata::thread_pool&) {
  return std::numeric_limits<double>::infinity();
}
inline double int8_conversion_rate(strata::thread_pool&) {
  return std::numeric_limits<double>::infinity();
}
#endif

/// What some threads can do together at best, per second.
struct machine_limits {
  double read_bytes = 0;
  double fma_flops = 0;
  double bf16_flops = 0;
  double f16_conversions = 0;   ///< elements made float
  double int8_conversions = 0;  ///< elements made float

  explicit machine_limits(strata::thread_pool& pool)
      : read_bytes(read_probe().rate(pool)),
        fma_flops(fma_peak(pool, 20'000'000)),
        bf16_flops(bf16_dot_peak(pool, 10'000'000)),
        f16_conversions(f16_conversion_rate(pool)),
        int8_conversions(int8_conversion_rate(pool)) {}

  /// What memory gives right now: others may use it, too. What units compute does not wander, but
  /// its measurement may have been disturbed: once more, for some milliseconds, and the higher
  /// counts.
  void renew(strata::thread_pool& pool, read_probe const& probe) {
    constexpr std::int64_t steps = 1'000'000;
    read_bytes = probe.rate(pool);
    fma_flops = std::max(fma_flops, fma_peak(pool, steps));
    bf16_flops = std::max(bf16_flops, bf16_dot_peak(pool, steps));
  }

  /// The seconds below which the work cannot be done: of what takes longest, as if all else ran
  /// beside it. Multiply-adds and dot products take turns on the same units; where the dot products
  /// are the slower ones (Emerald Rapids: half as fast), multiply-adds do their work, too.
  double seconds(machine_work const& work) const {
    return std::max({work.bytes / read_bytes,
                     work.fma_flops / fma_flops + work.bf16_flops / std::max(bf16_flops, fma_flops),
                     work.f16_conversions / f16_conversions,
                     work.int8_conversions / int8_conversions});
  }
};

}  // namespace bench
