// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The small matrix products of the CPU kernels, to the edges, against sums of long double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/attention/cpu/products.hpp>

#include "support/exact_numbers.hpp"

namespace {

using namespace strata::cpu::detail;  // what the kernels see

/// b and c lie with rows wide enough for whole vectors; c begins as `c`.
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
  long double exact(std::int32_t i, std::int32_t j, T factor) const {
    auto const start = c[static_cast<std::size_t>(i * width + j)];
    long double sum = factor == 0 ? 0 : static_cast<long double>(start) * factor;
    auto const m = left();
    for (std::int32_t k = 0; k < depth; ++k)
      if (T const x = m.data[i * m.row + k * m.step]; x != 0)
        sum += static_cast<long double>(x) * b[static_cast<std::size_t>(k * width + j)];
    return sum;
  }
};

/// Of c after `run(c)`, where row i began as factor(i) times what stood there.
template <class T, class Factor, class Run>
double worst_element(product<T> const& p, Factor&& factor, Run&& run) {
  auto got = p.c;
  run(got.data());
  double worst = 0;
  for (std::int32_t i = 0; i < p.rows; ++i)
    for (std::int32_t j = 0; j < p.columns; ++j) {
      auto const difference =
          got[static_cast<std::size_t>(i * p.width + j)] - p.exact(i, j, factor(i));
      support::keep_worst(worst, static_cast<double>(std::abs(difference)));
    }
  return worst;
}

/// Products of parts of the depth, none of it and all of it among them: the bits of a whole product
/// with an `a` that is zero elsewhere, and no word of what lies there.
template <class T>
void check_parts(product<T> p) {
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
  multiply(p.rows, p.columns, p.depth, p.left(), p.b.data(), p.width, whole.data(), p.width);
  multiply_parts(p.rows, p.columns, depths, poisoned.left(), p.b.data(), p.width, got.data(),
                 p.width, overwritten<T>{});
  CHECK(support::same_bits(got, whole));
}

/// A row meets one or the other as its neighbours have it.
template <class T>
void check_alike(product<T> const& p) {
  std::vector<extent> const depths(static_cast<std::size_t>(p.rows), extent{0, p.depth});
  auto plain = p.c, careful = p.c;
  multiply_parts(p.rows, p.columns, depths.data(), p.left(), p.b.data(), p.width, plain.data(),
                 p.width, kept_rows<T>{});
  multiply_nonzero(p.rows, p.columns, p.depth, p.left(), p.b.data(), p.width, careful.data(),
                   p.width, kept_rows<T>{});
  for (std::int32_t i = 0; i < p.rows; ++i)
    CHECK(std::equal(&plain[static_cast<std::size_t>(i * p.width)],
                     &plain[static_cast<std::size_t>(i * p.width)] + p.columns,
                     &careful[static_cast<std::size_t>(i * p.width)]));
}

/// What is kept of c: nothing, all of it, or of each row another part, of some none. Where nothing is
/// kept of a row there may be a NaN.
template <class T>
void check_kept(product<T> p, double bound) {
  std::vector<extent> const depths(static_cast<std::size_t>(p.rows), extent{0, p.depth});
  auto const both = [&](auto kept, auto factor) {
    auto const near = [&](product<T> const& of, auto&& run) {
      CHECK(worst_element(of, factor, run) <= bound);
    };
    near(p, [&](T* c) {
      multiply_parts(p.rows, p.columns, depths.data(), p.left(), p.b.data(), p.width, c, p.width,
                     kept);
    });
    auto hidden = p;
    for (std::size_t i = 0; i < hidden.a.size(); i += 3) hidden.a[i] = 0;
    near(hidden, [&](T* c) {
      multiply_nonzero(p.rows, p.columns, p.depth, hidden.left(), p.b.data(), p.width, c, p.width,
                       kept);
    });
  };
  both(kept_rows<T>{}, [](std::int32_t) { return T{1}; });
  std::vector<T> factors;
  for (std::int32_t i = 0; i < p.rows; ++i) factors.push_back(static_cast<T>(i % 4) / 3);
  for (std::int32_t i = 0; i < p.rows; i += 4)
    p.c[static_cast<std::size_t>(i * p.width)] = static_cast<T>(NAN);
  both(kept_rows<T>{factors.data()},
       [&](std::int32_t i) { return factors[static_cast<std::size_t>(i)]; });
  for (auto& x : p.c) x = static_cast<T>(NAN);
  both(overwritten<T>{}, [](std::int32_t) { return T{0}; });
}

template <class T>
void check_products(double bound) {
  for (std::int32_t const rows : {1, 2, 5, 6, 7, 12, 17})
    for (std::int32_t const columns : {1, 7, 8, 9, 16, 24, 40})
      for (bool const transposed : {false, true}) {
        CAPTURE(rows);
        CAPTURE(columns);
        CAPTURE(transposed);
        product<T> const p{rows, columns, 19, transposed};
        CHECK(worst_element(
                  p, [](std::int32_t) { return T{0}; },
                  [&](T* c) {
                    multiply(rows, columns, 19, p.left(), p.b.data(), p.width, c, p.width);
                  }) <= bound);
        check_kept(p, bound);
        check_parts(p);
        check_alike(p);
      }
}

}  // namespace

TEST_CASE("products: of every size, overwriting, adding, and adding to a part of each row") {
  check_products<float>(20 * 0x1p-24);
  check_products<double>(20 * 0x1p-53);
}

TEST_CASE("products: a zero hides an infinity in multiply_nonzero, and nothing else does") {
  product<float> p{7, 12, 19, true};
  p.b[static_cast<std::size_t>(5 * p.width + 3)] = INFINITY;
  p.b[static_cast<std::size_t>(6 * p.width + 4)] = NAN;
  for (std::size_t i = 0; i < 6; ++i) p.a[5 * 7 + i] = p.a[6 * 7 + i] = 0;  // all rows but the last
  auto got = p.c;
  multiply_nonzero(7, 12, 19, p.left(), p.b.data(), p.width, got.data(), p.width,
                   kept_rows<float>{});
  for (std::size_t i = 0; i < 7; ++i)
    for (std::size_t j = 0; j < 12; ++j) {
      auto const x = got[i * static_cast<std::size_t>(p.width) + j];
      CHECK(std::isinf(x) == (i == 6 && j == 3));
      CHECK(std::isnan(x) == (i == 6 && j == 4));
    }
}
