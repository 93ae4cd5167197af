// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Bodies of strata-lm's kernels, run thread by thread on the host, and numbers for them. Compiled by
// nvcc the same tests run on a device, whose memory is the host's (cuda/device/main.cpp).
//
// Bounds: a result in bf16 is off by half a unit in the last place, 2^-8 of itself at most, and by
// what sums of floats are, which `slack` covers: a multiple of the size of what is added up.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <strata/cache/element.hpp>

#include "cuda/block_ops.hpp"

#if defined(__CUDACC__)
#include "cuda/launch.cuh"
namespace simt {
enum class order { ascending, descending, shuffled };  // as the device likes
}
#else
#include "support/simt.hpp"
#endif

namespace bodies {

using strata::bfloat16;

/// Of the root mean squares of norms.
inline constexpr double norm_epsilon = 1e-5;

inline constexpr simt::order orders[] = {simt::order::ascending, simt::order::descending,
                                         simt::order::shuffled};

template <class Body>
void run(Body const& body, [[maybe_unused]] simt::order order = simt::order::ascending) {
#if defined(__CUDACC__)
  lm::cuda::launch(nullptr, body);
  lm::cuda::check(cudaDeviceSynchronize(), "a body");
#else
  lm::cuda::grid const g = body.size();
  simt::launch({static_cast<std::int32_t>(g.blocks), g.threads, g.shared_bytes}, body, order);
#endif
}

template <class T>
double value(T x) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return strata::to_float(x);
  else
    return static_cast<double>(x);
}

/// Normal numbers, as T can hold them.
template <class T>
std::vector<T> numbers(std::int64_t count, unsigned seed, double deviation = 1, double mean = 0) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(mean, deviation);
  std::vector<T> out(static_cast<std::size_t>(count));
  for (auto& x : out) x = strata::detail::narrow<T>(static_cast<float>(normal(engine)));
  return out;
}

/// Memory that is to be written: NaN.
template <class T>
std::vector<T> unwritten(std::int64_t count) {
  auto const nan = std::numeric_limits<float>::quiet_NaN();
  return std::vector<T>(static_cast<std::size_t>(count), strata::detail::narrow<T>(nan));
}

template <class T>
void check_close(std::vector<T> const& got, std::vector<double> const& expected, double slack) {
  REQUIRE(got.size() == expected.size());
  double const unit = std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-22;
  for (std::size_t i = 0; i < got.size(); ++i) {
    auto const off = std::abs(value(got[i]) - expected[i]);
    if (off <= unit * std::abs(expected[i]) + slack) continue;
    CAPTURE(i);
    CHECK(off <= unit * std::abs(expected[i]) + slack);
    return;
  }
}

template <class T>
std::vector<double> doubles(std::vector<T> const& x) {
  std::vector<double> out;
  for (auto const& v : x) out.push_back(value(v));
  return out;
}

/// The slope of f at x along each of its elements, by central differences.
template <class Function>
std::vector<double> slopes(std::vector<double> x, Function const& f) {
  constexpr double step = 1e-5;
  std::vector<double> out;
  for (auto& v : x) {
    auto const kept = v;
    v = kept + step;
    auto const above = f(x);
    v = kept - step;
    out.push_back((above - f(x)) / (2 * step));
    v = kept;
  }
  return out;
}

}  // namespace bodies
