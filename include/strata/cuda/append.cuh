// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// New rows of K and V into a cache on a device, K turned by RoPE on the way: one launch for both,
// all tokens at once, whatever the depths of the sequences. On an H100 bf16 rows with RoPE come at
// 0.18 of a copy's rate, int8 at 0.03 (bench/results/cuda_append.json).
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include <strata/cache/rope.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/append_call.hpp>
#include <strata/cuda/detail/launch.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

/// Input rows of a layer: `heads` is [num_rows, kv_heads, dim], row 0 of it being input row
/// `first_row` of `to`, whose pointers are the device's. Rows may lie `row_stride` elements apart,
/// as those of one product for Q, K and V do. Sequences whose row is -1 are passed by.
template <class T>
using append_side = detail::append_side<T>;

/// Encodes K and V (either may have no rows) as the codecs do: bits are those of the host's
/// `store`, or, where RoPE turns K, off by what fused multiply-adds round less. A row whose
/// position lies beyond the table becomes NaN, which every `device_codec` keeps. Writes nothing
/// else, allocates nothing, waits for nothing; the step is told by `kv_run::mark_stored`.
template <class KCodec, class VCodec, query_element T>
status append(::cudaStream_t stream, append_side<T> const& k, append_side<T> const& v,
              rotary<float> const& rope = {}) noexcept {
  return detail::append_on<KCodec, VCodec>(detail::stream_launcher{stream}, k, v, rope);
}

}  // namespace cuda

STRATA_NAMESPACE_END
