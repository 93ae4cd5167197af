// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include <strata/thread_pool.hpp>

#include "few_rows.hpp"
#include "gemm.hpp"
#include "narrow_product.hpp"
#include "served_model.hpp"

namespace lm {

/// A product with a weight: made by the thread that has a slab, or spread over all threads where
/// that is worth waking them (about 1 us while they look for work). Sizes decide, not threads, so
/// that bits do not change with their number.
template <class T>
struct weight_product {
  strata::thread_pool& pool;
  bool whole = false;             ///< of all rows of the step, not of one thread's slab
  T* scratch = nullptr;           ///< [threads, scratch_size]; not needed for weights of T
  std::int64_t scratch_size = 0;  ///< product_scratch of the widest weight
  std::int32_t thread = 0;        ///< whose scratch is free

  void operator()(T const* x, weight_matrix<T> const& w, T* y, std::int64_t rows, std::int64_t in,
                  std::int64_t out, T beta = 0) const noexcept {
    if (w.narrow != nullptr) return narrow(x, w.narrow, y, rows, in, out, beta);
    constexpr std::int64_t worth_spreading = 1 << 19;  // multiply-adds
    bool const spread = whole && rows * in * out >= worth_spreading;
    if (rows <= few_rows)
      linear_few_rows(pool, spread, x, w.wide, y, rows, in, out, beta);
    else if (spread)
      linear(pool, x, w.wide, y, rows, in, out, beta);
    else
      linear_slab(x, w.wide, y, rows, in, out, beta);
  }

 private:
  void narrow(T const* x, strata::bfloat16 const* w, T* y, std::int64_t rows, std::int64_t in,
              std::int64_t out, T beta) const noexcept {
    constexpr std::int64_t worth_spreading = 1 << 15;  // elements of the weight: 3 us
    bool const spread = whole && in * out >= worth_spreading;
    auto const scratch_of = [this](std::int32_t of) { return scratch + of * scratch_size; };
    if (rows <= few_narrow_rows)
      linear_few_rows(pool, spread, x, w, y, rows, in, out, beta, scratch_of(thread));
    else
      linear_widened(pool, spread, x, w, y, rows, in, out, beta, thread, scratch_of);
  }
};

}  // namespace lm
