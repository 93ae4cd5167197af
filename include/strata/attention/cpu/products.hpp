// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Small matrix products: where the tiles of the CPU kernels spend their time.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// A matrix that is read element by element: (i, k) is data[i * row + k * step].
template <class T>
struct matrix {
  T const* data;
  std::int64_t row, step;
};

#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int multiply_rows = 8;
#else
inline constexpr int multiply_rows = 6;
#endif

/// What becomes of c when a product is put there: it is overwritten, whatever stood there.
template <class T>
struct overwritten {
  static constexpr bool keeps = false;
  overwritten from(std::int32_t) const noexcept { return {}; }
};
/// Or the product is added to c, whose rows are multiplied first: by a factor each, or by 1. A factor
/// of 0 clears a row, whatever stood there.
template <class T>
struct kept_rows {
  T const* factors = nullptr;  // [rows], or null

  static constexpr bool keeps = true;
  T of(std::int32_t row) const noexcept { return factors == nullptr ? T{1} : factors[row]; }
  kept_rows from(std::int32_t row) const noexcept {
    return {factors == nullptr ? nullptr : factors + row};
  }
};

/// What row i of a product starts from.
template <class T, class Kept>
[[gnu::always_inline]] inline typename lanes<T>::vec start_of(Kept kept, std::int32_t i,
                                                              T const* c) noexcept {
  using v = lanes<T>;
  if constexpr (Kept::keeps) {
    auto const factor = v::all(kept.of(i));
    return in_register((factor == 0 ? v::all(0) : v::load(c)) * factor);
  } else {
    return v::all(0);
  }
}

/// A block of `multiply` in registers. Inlined by force, and its start without a branch: calls of a
/// function, which began with both, took forward 1.06 times as long.
template <int Rows, int Vecs, class T, class Kept>
[[gnu::always_inline]] inline void multiply_block(matrix<T> a, T const* b, std::int64_t b_row,
                                                  std::int32_t depth, T* c, std::int64_t c_row,
                                                  Kept kept) noexcept {
  using v = lanes<T>;
  constexpr auto rows = static_cast<std::size_t>(Rows), vecs = static_cast<std::size_t>(Vecs);
  typename v::vec sum[rows][vecs];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < Vecs; ++j) sum[i][j] = start_of(kept, i, c + i * c_row + j * v::count);
  for (std::int32_t k = 0; k < depth; ++k) {
    typename v::vec row[vecs];
#pragma GCC unroll 2
    for (int j = 0; j < Vecs; ++j) row[j] = v::load(b + k * b_row + j * v::count);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < Vecs; ++j)
        sum[i][j] = v::multiply_add(v::all(a.data[i * a.row + k * a.step]), row[j], sum[i][j]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < Vecs; ++j) v::store(c + i * c_row + j * v::count, sum[i][j]);
}

/// From first on, before last.
struct extent {
  std::int32_t first = 0, last = 0;
};

/// depth: of the first block of multiply_rows rows; that of the next lies `next` further on.
template <int Rows, class T, class Kept>
[[gnu::always_inline]] inline void multiply_strip(std::int32_t rows, bool wide, matrix<T> a,
                                                  T const* b, std::int64_t b_row,
                                                  extent const* depth, std::int32_t next, T* c,
                                                  std::int64_t c_row, Kept kept) noexcept {
  for (; rows >= Rows; rows -= Rows, a.data += Rows * a.row, c += Rows * c_row) {
    matrix<T> const from{a.data + depth->first * a.step, a.row, a.step};
    T const* const row = b + depth->first * b_row;
    if (wide)
      multiply_block<Rows, 2>(from, row, b_row, depth->last - depth->first, c, c_row, kept);
    else
      multiply_block<Rows, 1>(from, row, b_row, depth->last - depth->first, c, c_row, kept);
    kept = kept.from(Rows);
    if constexpr (Rows == multiply_rows) depth += next;
  }
  if constexpr (Rows > 1)
    if (rows > 0) multiply_strip<Rows / 2>(rows, wide, a, b, b_row, depth, next, c, c_row, kept);
}

/// c[rows][columns] = a[rows][depth] b[depth][columns]; every sum is one chain over ascending depth,
/// whatever the sizes. b and c are read and written to the end of the columns' last vector. 6 x 2
/// vectors of sums, 2 of b and 1 of a fit the 16 registers of AVX2, and 12 sums in flight cover 2 FMA
/// ports x 4 cycles. Where there are 32 registers 8 x 2 read less of a: 1.03 times as fast in forward,
/// 1.1 in backward (8 x 3 and 12 x 2 are no faster, 6 x 4 is slower).
template <class T>
void multiply(std::int32_t rows, std::int32_t columns, std::int32_t depth, matrix<T> a, T const* b,
              std::int64_t b_row, T* c, std::int64_t c_row) noexcept {
  extent const whole{0, depth};
  for (std::int32_t j = 0; j < columns; j += 2 * lanes<T>::count)
    multiply_strip<multiply_rows>(rows, columns - j > lanes<T>::count, a, b + j, b_row, &whole, 0,
                                  c + j, c_row, overwritten<T>{});
}

/// The same, and what is kept of c, where `a` is zero but in a part of the depth, depths[i] in the
/// multiply_rows rows from row i * multiply_rows on: nothing else of `a` and b is read.
template <class T, class Kept>
void multiply_parts(std::int32_t rows, std::int32_t columns, extent const* depths, matrix<T> a,
                    T const* b, std::int64_t b_row, T* c, std::int64_t c_row, Kept kept) noexcept {
  for (std::int32_t j = 0; j < columns; j += 2 * lanes<T>::count)
    multiply_strip<multiply_rows>(rows, columns - j > lanes<T>::count, a, b + j, b_row, depths, 1,
                                  c + j, c_row, kept);
}

/// The same where b holds an infinity or a NaN: a zero of `a` keeps out whatever it meets. Sums round
/// as those of multiply_parts do: which of the two a row meets may hang on its neighbours.
template <class T, class Kept>
void multiply_nonzero(std::int32_t rows, std::int32_t columns, std::int32_t depth, matrix<T> a,
                      T const* b, std::int64_t b_row, T* c, std::int64_t c_row,
                      Kept kept) noexcept {
  using v = lanes<T>;
  for (std::int32_t i = 0; i < rows; ++i, c += c_row)
    for (std::int32_t j = 0; j < columns; j += v::count) {
      auto sum = start_of(kept, i, c + j);
      for (std::int32_t k = 0; k < depth; ++k)
        if (T const x = a.data[i * a.row + k * a.step]; x != 0)
          sum = v::multiply_add(v::all(x), v::load(b + k * b_row + j), sum);
      v::store(c + j, sum);
    }
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
