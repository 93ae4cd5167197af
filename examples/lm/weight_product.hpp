// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include <strata/thread_pool.hpp>

#include "few_rows.hpp"
#include "gemm.hpp"

namespace lm {

/// A product with a weight: made by the thread that has a slab, or spread over all threads where
/// that is worth waking them (about 10 us). Sizes decide, not threads, so that bits do not change
/// with their number.
template <class T>
struct weight_product {
  strata::thread_pool& pool;
  bool whole = false;  ///< of all rows of the step, not of one thread's slab

  void operator()(T const* x, T const* w, T* y, std::int64_t rows, std::int64_t in,
                  std::int64_t out, T beta = 0) const noexcept {
    constexpr std::int64_t worth_spreading = 1 << 19;  // multiply-adds
    bool const spread = whole && rows * in * out >= worth_spreading;
    if (rows <= few_rows)
      linear_few_rows(pool, spread, x, w, y, rows, in, out, beta);
    else if (spread)
      linear(pool, x, w, y, rows, in, out, beta);
    else
      linear_slab(x, w, y, rows, in, out, beta);
  }
};

}  // namespace lm
