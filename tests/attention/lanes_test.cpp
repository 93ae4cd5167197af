// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The arithmetic of the CPU kernels: exp, and the small matrix products, to the edges.
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

/// b and c lie with rows wide enough for whole vectors; c begins as `start`.
template <class T>
struct product {
  std::int32_t rows, columns, depth;
  bool transposed;  // a lies [depth][rows]
  std::int64_t width = stride_of<T>(columns);
  std::vector<T> a = support::random_values<T>(std::int64_t{rows} * depth, 1);
  std::vector<T> b = support::random_values<T>(depth * width, 2);
  std::vector<T> c = support::random_values<T>(rows * width, 3);

  matrix<T> left() const {
    return transposed ? matrix<T>{a.data(), 1, rows} : matrix<T>{a.data(), depth, 1};
  }
  T exact(std::int32_t i, std::int32_t j, bool add) const {
    T sum = add ? c[static_cast<std::size_t>(i * width + j)] : T{0};
    auto const m = left();
    for (std::int32_t k = 0; k < depth; ++k)
      if (T const x = m.data[i * m.row + k * m.step]; x != 0)
        sum += x * b[static_cast<std::size_t>(k * width + j)];
    return sum;
  }
};

template <class T, class Multiply>
double worst_element(product<T> const& p, bool add, Multiply&& run) {
  auto got = p.c;
  run(p.rows, p.columns, p.depth, p.left(), p.b.data(), p.width, got.data(), p.width, add);
  double worst = 0;
  for (std::int32_t i = 0; i < p.rows; ++i)
    for (std::int32_t j = 0; j < p.columns; ++j) {
      auto const difference = got[static_cast<std::size_t>(i * p.width + j)] - p.exact(i, j, add);
      if (!(std::abs(difference) <= worst)) worst = static_cast<double>(std::abs(difference));
    }
  return worst;
}

/// Products of parts of the depth, none of it and all of it among them: the bits of a whole product
/// with an `a` that is zero elsewhere, and no word of what lies there.
template <class T>
void check_parts(product<T> p, bool add) {
  constexpr extent parts[] = {{3, 11}, {0, 19}, {19, 0}, {18, 19}};
  extent depths[17];
  auto poisoned = p;
  auto const m = p.left();
  for (std::int32_t i = 0; i < p.rows; ++i) {
    auto const part = depths[i / multiply_rows] = parts[(i / multiply_rows + p.columns) % 4];
    for (std::int32_t k = 0; k < p.depth; ++k) {
      if (k >= part.first && part.last > k) continue;
      auto const at = static_cast<std::size_t>(i * m.row + k * m.step);
      p.a[at] = 0;
      poisoned.a[at] = static_cast<T>(NAN);
    }
  }
  auto whole = p.c, got = p.c;
  multiply(p.rows, p.columns, p.depth, p.left(), p.b.data(), p.width, whole.data(), p.width, add);
  multiply_parts(p.rows, p.columns, depths, poisoned.left(), p.b.data(), p.width, got.data(),
                 p.width, add);
  CHECK(support::same_bits(got, whole));
}

template <class T>
void check_products(double bound) {
  for (std::int32_t const rows : {1, 2, 5, 6, 7, 12, 17})
    for (std::int32_t const columns : {1, 7, 8, 9, 16, 24, 40})
      for (bool const transposed : {false, true})
        for (bool const add : {false, true}) {
          CAPTURE(rows);
          CAPTURE(columns);
          product<T> const p{rows, columns, 19, transposed};
          CHECK(worst_element(p, add, multiply<T>) <= bound);
          auto hidden = p;
          for (std::size_t i = 0; i < hidden.a.size(); i += 3) hidden.a[i] = 0;
          CHECK(worst_element(hidden, add, multiply_nonzero<T>) <= bound);
          check_parts(p, add);
        }
}

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

TEST_CASE("lanes: products of every size, overwriting and adding") {
  check_products<float>(19 * 0x1p-24);
  check_products<double>(19 * 0x1p-53);
}

TEST_CASE("lanes: a zero hides an infinity in multiply_nonzero, and nothing else does") {
  product<float> p{7, 12, 19, true};
  p.b[static_cast<std::size_t>(5 * p.width + 3)] = INFINITY;
  p.b[static_cast<std::size_t>(6 * p.width + 4)] = NAN;
  for (std::size_t i = 0; i < 6; ++i) p.a[5 * 7 + i] = p.a[6 * 7 + i] = 0;  // all rows but the last
  auto got = p.c;
  multiply_nonzero<float>(7, 12, 19, p.left(), p.b.data(), p.width, got.data(), p.width, true);
  for (std::size_t i = 0; i < 7; ++i)
    for (std::size_t j = 0; j < 12; ++j) {
      auto const x = got[i * static_cast<std::size_t>(p.width) + j];
      CHECK(std::isinf(x) == (i == 6 && j == 3));
      CHECK(std::isnan(x) == (i == 6 && j == 4));
    }
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
