// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The arithmetic of the CPU kernels, to the edges.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include <strata/attention/cpu/lanes.hpp>

#include "support/exact_numbers.hpp"

namespace {

using namespace strata::cpu::detail;  // what the kernels see

}  // namespace

TEST_CASE("lanes: the instruction set's name goes with the width of the vectors") {
  static_assert(strata::cpu::isa_name() != nullptr);
  std::string_view const name = strata::cpu::isa_name();
  CHECK(name.starts_with("avx512") == (vector_bytes == 64));
  CHECK((name == "avx2_f16c" || name == "avx2" || name == "avx") == (vector_bytes == 32));
  CHECK((name == "neon" || name == "portable") == (vector_bytes == 16));
}

TEST_CASE("lanes: exp of every 1021st float from -87.3 to 88 is right to 1e-7") {
  double worst = 0;
  for (float const sign : {-1.0f, 1.0f})
    for (std::uint32_t bits = 0; bits < std::bit_cast<std::uint32_t>(88.0f); bits += 1021) {
      auto const x = std::copysign(std::bit_cast<float>(bits), sign);
      if (x < -87.3f) break;
      auto const exact = std::exp(static_cast<double>(x));
      support::keep_worst(worst, std::abs(exponential_of(x) - exact) / exact);
    }
  CHECK(worst < 1e-7);
}

TEST_CASE("lanes: exp at its edges") {
  CHECK(exponential_of(0.0f) == 1);
  CHECK(exponential_of(-0.0f) == 1);
  for (float const x : {-87.31f, -88.0f, -127.5f, -1e4f, -1e30f, -INFINITY})
    CHECK(exponential_of(x) == 0);
  CHECK(std::isnan(exponential_of(NAN)));
  CHECK(exponential_of(0.0) == 1);
  CHECK(exponential_of(-INFINITY + 0.0) == 0);
  CHECK(std::isnan(exponential_of(NAN + 0.0)));
  // A lane knows nothing of its neighbours.
  auto x = lanes<float>::all(NAN);
  x[0] = -INFINITY;
  x[1] = -2.5f;
  CHECK(exponential(x)[0] == 0);
  CHECK(exponential(x)[1] == exponential_of(-2.5f));
}

TEST_CASE("lanes: all_finite sees every lane") {
  std::vector<float> x(48, 3e38f);
  CHECK(all_finite(x.data(), 48));
  for (std::size_t i = 0; i < x.size(); ++i)
    for (float const bad : {NAN, INFINITY, -INFINITY}) {
      x[i] = bad;
      CHECK_FALSE(all_finite(x.data(), 48));
      x[i] = 0;
    }
}
