// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Matrix products, from a CBLAS. Every product is cut into slabs of 128 rows of its output; a slab
// is one single-threaded BLAS call, and the slabs are spread over the threads. A slab's bits depend
// on neither the number of threads nor on who computes it, so the product's do not. (OpenBLAS's own
// threading cuts where it likes, and its bits change with the number of threads.)
//
// Weights are [out, in], rows are tokens:
//
//     y  [rows, out] = x  [rows, in]  W^T        forward
//     dx [rows, in]  = dy [rows, out] W          gradient of the input
//     dW [out, in]  += dy^T x                    gradient of the weight: the sum over all rows is
//                                                one BLAS call's, in one order
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include <cblas.h>

#include <strata/executor.hpp>
#include <strata/thread_pool.hpp>

namespace lm {

/// Rows of an output that one BLAS call computes: enough for it to be efficient, few enough that a
/// slab's activations stay in a core's L2 cache (128 x 352 floats are 176 KiB).
inline constexpr std::int64_t slab_rows = 128;

/// Rows `begin` .. `begin + count - 1`; `index` is begin / slab_rows. `thread`, below the pool's
/// num_shares(), says whose scratch memory is free for it.
struct slab {
  std::int64_t index = 0;
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int32_t thread = 0;
};

constexpr std::int64_t num_slabs(std::int64_t rows, std::int64_t size = slab_rows) noexcept {
  return (rows + size - 1) / size;
}

/// Tells OpenBLAS once that its calls keep to the thread that makes them.
inline void use_single_threaded_blas() noexcept {
  static bool const done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

/// Runs body(task, thread) for tasks 0 .. count - 1, each once, handing the next one to whichever
/// thread is free: a thread that another process slows down takes fewer. One task runs where it is
/// called.
template <class Body>
void for_tasks(strata::thread_pool& pool, std::int64_t count, Body&& body) {
  if (count == 1 || pool.num_shares() == 1) {
    for (std::int64_t i = 0; i < count; ++i) body(i, std::int32_t{0});
    return;
  }
  std::atomic<std::int64_t> next{0};
  static_cast<void>(pool.run([&](strata::share s) noexcept -> strata::status {
    for (auto i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(i, s.ith);
    return {};
  }));
}

/// Runs body(slab) for every slab of `rows` rows.
template <class Body>
void for_slabs(strata::thread_pool& pool, std::int64_t rows, Body&& body) {
  for_tasks(pool, num_slabs(rows), [&](std::int64_t i, std::int32_t thread) {
    auto const begin = i * slab_rows;
    auto const left = rows - begin;
    body(slab{i, begin, left < slab_rows ? left : slab_rows, thread});
  });
}

namespace detail {

/// C[m, n] = op(A) op(B) + beta C, row-major, in the calling thread.
inline void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, std::int64_t m, std::int64_t n,
                 std::int64_t k, float const* a, std::int64_t lda, float const* b, std::int64_t ldb,
                 float beta, float* c, std::int64_t ldc) noexcept {
  using i = blasint;
  cblas_sgemm(CblasRowMajor, ta, tb, static_cast<i>(m), static_cast<i>(n), static_cast<i>(k), 1, a,
              static_cast<i>(lda), b, static_cast<i>(ldb), beta, c, static_cast<i>(ldc));
}
inline void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, std::int64_t m, std::int64_t n,
                 std::int64_t k, double const* a, std::int64_t lda, double const* b,
                 std::int64_t ldb, double beta, double* c, std::int64_t ldc) noexcept {
  using i = blasint;
  cblas_dgemm(CblasRowMajor, ta, tb, static_cast<i>(m), static_cast<i>(n), static_cast<i>(k), 1, a,
              static_cast<i>(lda), b, static_cast<i>(ldb), beta, c, static_cast<i>(ldc));
}

}  // namespace detail

/// y[rows, out] = x[rows, in] w[out, in]^T + beta y, in the calling thread: one slab's part.
template <class T>
void linear_slab(T const* x, T const* w, T* y, std::int64_t rows, std::int64_t in, std::int64_t out,
                 T beta = 0) noexcept {
  detail::gemm(CblasNoTrans, CblasTrans, rows, out, in, x, in, w, in, beta, y, out);
}

/// dx[rows, in] = dy[rows, out] w[out, in] + beta dx, in the calling thread.
template <class T>
void linear_input_gradient_slab(T const* dy, T const* w, T* dx, std::int64_t rows, std::int64_t in,
                                std::int64_t out, T beta = 0) noexcept {
  detail::gemm(CblasNoTrans, CblasNoTrans, rows, in, out, dy, out, w, in, beta, dx, in);
}

/// y[rows, out] = x[rows, in] w[out, in]^T + beta y. Fewer rows than one slab (decoding) are cut
/// into slabs of columns instead, that is of rows of w.
template <class T>
void linear(strata::thread_pool& pool, T const* x, T const* w, T* y, std::int64_t rows,
            std::int64_t in, std::int64_t out, T beta = 0) noexcept {
  use_single_threaded_blas();
  if (rows > slab_rows) {
    for_slabs(pool, rows, [&](slab s) {
      linear_slab(x + s.begin * in, w, y + s.begin * out, s.count, in, out, beta);
    });
  } else {
    for_slabs(pool, out, [&](slab s) {
      detail::gemm(CblasNoTrans, CblasTrans, rows, s.count, in, x, in, w + s.begin * in, in, beta,
                   y + s.begin, out);
    });
  }
}

/// One weight gradient: dw[out, in] += dy[rows, out]^T x[rows, in].
template <class T>
struct weight_gradient {
  T const* dy = nullptr;  ///< [rows, out]
  T const* x = nullptr;   ///< [rows, in]
  T* dw = nullptr;        ///< [out, in]
  std::int64_t out = 0;
  std::int64_t in = 0;
};

/// All of these at once, so that small ones do not leave threads without work: a dw of 128 rows is
/// a single slab.
template <class T>
void add_weight_gradients(strata::thread_pool& pool, std::span<weight_gradient<T> const> list,
                          std::int64_t rows) noexcept {
  use_single_threaded_blas();
  std::int64_t count = 0;
  for (auto const& g : list) count += num_slabs(g.out);
  for_tasks(pool, count, [&](std::int64_t task, std::int32_t) {
    auto const* g = list.data();
    for (; task >= num_slabs(g->out); ++g) task -= num_slabs(g->out);
    auto const begin = task * slab_rows;
    auto const left = g->out - begin;
    detail::gemm(CblasTrans, CblasNoTrans, left < slab_rows ? left : slab_rows, g->in, rows,
                 g->dy + begin, g->out, g->x, g->in, T{1}, g->dw + begin * g->in, g->in);
  });
}

}  // namespace lm
