// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rotated K on a device: rows are appended rotated, and read as they lie by queries that are rotated
// instead, once for each pair of a row and a head. Threads rotate a head together.
#pragma once

#include <cstdint>

#include <strata/cache/rotated_codec.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

using strata::detail::stored_as;

/// `hadamard_rotate` of x, [n] in shared memory, by `count` threads of which this is number `thread`:
/// the same sums, so the same bits. `sync` lets all of them arrive, and is called by all as often.
template <class Sync>
STRATA_DEVICE inline void rotate_together(float* x, std::int32_t n, std::int32_t thread,
                                          std::int32_t count, Sync const& sync) {
  while (n > 0) {
    strata::detail::hadamard_block<float> const whole(n);
    for (std::int32_t step = 1; step < whole.length; step *= 2) {
      for (auto pair = thread; pair < whole.length / 2; pair += count) {
        auto const i = pair / step * 2 * step + pair % step;
        auto const a = x[i], b = x[i + step];
        x[i] = a + b;
        x[i + step] = a - b;
      }
      sync();
    }
    for (auto i = thread; i < whole.length; i += count) x[i] *= whole.factor;
    sync();
    x += whole.length;
    n -= whole.length;
  }
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
