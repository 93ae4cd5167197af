// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The products of decoding: a few rows against a weight that is read once from memory. A BLAS packs
// both sides of a matrix product, which costs more than the product itself here; matrix times
// vector reads the weight as it lies. One row: 4.5 times as fast (1024 x 3072 floats, OpenBLAS
// 0.3.21, Zen 3); four rows: 1.2 times; eight: slower.
#pragma once

#include <cstdint>

#include <cblas.h>

#include <strata/thread_pool.hpp>

#include "gemm.hpp"

namespace lm {

/// Up to so many rows go one by one.
inline constexpr std::int64_t few_rows = 4;

namespace detail {

/// y[m] = a[m, n] x[n] + beta y, row-major, in the calling thread.
inline void gemv(std::int64_t m, std::int64_t n, float const* a, float const* x, float beta,
                 float* y) noexcept {
  using i = blasint;
  cblas_sgemv(CblasRowMajor, CblasNoTrans, static_cast<i>(m), static_cast<i>(n), 1, a,
              static_cast<i>(n), x, 1, beta, y, 1);
}
inline void gemv(std::int64_t m, std::int64_t n, double const* a, double const* x, double beta,
                 double* y) noexcept {
  using i = blasint;
  cblas_dgemv(CblasRowMajor, CblasNoTrans, static_cast<i>(m), static_cast<i>(n), 1, a,
              static_cast<i>(n), x, 1, beta, y, 1);
}

}  // namespace detail

/// y[rows, out] = x[rows, in] w[out, in]^T + beta y in slabs of 128 rows of w, each of which meets
/// all rows of x while it lies in a cache. Spread over the threads if `spread`; the same bits.
template <class T>
void linear_few_rows(strata::thread_pool& pool, bool spread, T const* x, T const* w, T* y,
                     std::int64_t rows, std::int64_t in, std::int64_t out, T beta) noexcept {
  auto const slab_of = [=](slab s) {
    for (std::int64_t r = 0; r < rows; ++r)
      detail::gemv(s.count, in, w + s.begin * in, x + r * in, beta, y + r * out + s.begin);
  };
  if (spread) return for_slabs(pool, out, slab_of);
  for (std::int64_t begin = 0; begin < out; begin += slab_rows)
    slab_of({begin / slab_rows, begin, out - begin < slab_rows ? out - begin : slab_rows, 0});
}

}  // namespace lm
