// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention on the CPU, as fast as we know how: sequences of few rows are streamed (stream.hpp), the
// others go through the tiles of blocked_attention, and so does backward.
//
// Streamed are sequences of up to 32 pairs of a row and a query head of one KV head: decode, and
// draft tokens. K and V are read once, where they lie, for all of them; f32, f16, bf16, int8, q8_0,
// fp8 and int4 in place, in any pair, other codecs by way of floats. For K of a rotated codec it is
// the queries that are rotated, once, here and in the tiles. A head's scale (fp8) multiplies its
// scores and its output, not the elements. Every head_dim works; multiples of two vectors (32
// elements with AVX-512) waste nothing.
//
// Bits: those of a row depend on its sequence alone, on how many rows it brings and on the keys:
// never on its neighbours, the batch or the number of shares, because keys come in splits of 512
// whose states are merged in ascending order. One row at a time and a prompt in one piece go
// different ways and agree within the bound (blocked_attention's bits agree, at a price).
//
// Bound: that of blocked_attention (blocked.hpp), also where queries and K of bfloat16 are not
// widened: scores are sums of exact products all the same, and heads whose queries hold denormal
// numbers, or some above 2^80, go the other way. Of a bfloat16 or float16 output it is at most half a
// unit in the last place more. Backward repeats the scores of the tiles: where a lse comes from
// streamed rows it is off by some 2^-24 |lse|, and so are weights made from it.
//
// A head's scale meets a sum, where the codec rounds its product with every element: streamed scores
// and outputs are off by up to 2^-24 of what is summed, in magnitude, from the codec's. Such rows,
// and those of rotated K, take queries up to 2^112, whose sums do not overflow; where K is rotated a
// query that is not finite makes its row NaN.
//
// Versions, by their speed: decode of one row over 16K tokens, 32 query heads on 8 KV heads of 128,
// bf16, two cores of a Zen 4, K and V in 2 MiB pages. The last is 2.4 to 2.8 ms where those cores
// read 34 GB/s: 0.66 to 0.80 of the roofline (bench/results/attention_decode.json).
//
//   blocked_attention: keys decoded to tiles of floats                          0.19
//   streamed, nothing asked for ahead                                           0.45
//   - the next tile asked for in one burst, into level 1 / level 2              0.5 / 0.6
//   - line by line while this one is computed, into level 1                     0.5
//   - into level 2, but in a function that g++ takes for one without effect     0.6
//   - into level 2, head by head over all keys, where a token's heads adjoin    0.55
//   - every second line, the other left to the hardware                         0.45
//   - by loads, which the hardware would follow                                 0.4
//   streamed, tile by tile and in each head by head, line by line into level 2  0.85
//   - softmax of all pairs step by step, sums in place                          0.95
//   - what is asked for goes by whole tokens: those heads' part of each         1
//   - bfloat16 queries and K multiplied as they are (AVX512BF16), one thread    1.12
//
// The last of them before that, one thread of a Zen 3 (AVX2), K and V in pages of 4 KB, by heads, f16:
//
//                              3 x 3 of 64, 8K   8 x 4 of 128, 4K   8 x 8 of 128, 4K
//   as above                         1                 1                  1
//   each line asked for once,
//   weights kept in registers        1.2 - 1.3         1.1 - 1.3          1.1
//   - 4 queries by 3 keys, lists
//     of lines by vectors            1.3 - 1.4         1.2 - 1.4          1.2
//   plain reads of K and V           1.9               2.1                3.2
//
// And one thread of an Emerald Rapids (AVX512FP16), K and V in 2 MiB pages: 32768 tokens, KV heads of
// 128 and the query heads on each; last 4 rows of 4 query heads. f16 and bf16:
//
//                                    8 x 1       8 x 4       4 x 8     8 x (4 x 4)
//   as the last on Zen 4            1     1     1     1     1     1     1     1
//   no list of lines where the
//   next tile lies in one piece    1.05  1.03  1.05  1.02  1.08  1.04  1.02  1.05
//   - more than 8 queries spread                                       1.23  1.20
//   - each line asked for again,
//     8 keys before it is read     1.10  1.09  1.08  1.12  1.11  1.11  1.20  1.20
//
// With bfloat16 queries, which are made float there, the 4 rows take 0.75 of the time that dot
// products took. Long tokens, 32 KV heads, in tiles of 32 keys: 1.12 f16, 1.15 q8_0. Each in turn no
// faster: 4 or 8 queries spread (0.92 and 0.95 of the speed), asked for again in level 2, a third time,
// or 16 keys before. With K and V in level 2 such a thread takes 28 ns for a token of a KV head with 4
// query heads (f16), 45 with 8; the multiply-adds alone 12 and 23, plain reads of memory 31.
//
// Codecs, by the time of bf16, 16K tokens: on 8 and on 32 KV heads by one thread, on 8 and on 32 by
// two; last what the way by floats took on 8 and 32 by one. On 8 all are bound by what they compute.
//
//   int8                             1.19  0.62   0.93  0.59
//   fp8                              1.13  0.54   0.85  0.55   2.1   1.6
//   int4                             1.17  0.56   0.96  0.49   4.9   4.5
//   K rotated int4, V int4           1.17  0.55   0.97  0.50    14    13
//   K int8, V int4                   1.18  0.58   0.88  0.54   3.0   2.5
//
// No faster on a Zen 4: tiles of 32 and of 128 keys; 16 heads at a time, in shorter tiles; the softmax
// of several heads at once (0.93 where a head has one row); lanes added up by blends (0.9 of the dot
// products: g++ spills); int8 scales gathered for a tile and put into the weights (0.85).
//
// One thread computes at 0.70 of its FMA peak with 4 query heads per KV head, at 0.76 with 8, as
// long as a cache holds K and V. The inner loops alone reach 0.9 (16 sums in registers; 0.55 where
// g++ reads keys and queries from memory for every use, hence `in_register`); the softmax is 8 % and
// the sums across lanes 10 % of the whole. From memory a thread reads no more than 18 GB/s: that is
// how many lines it may ask for at a time.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/cpu/forward_call.hpp>
#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {

/// Queries of float, double, bfloat16 or float16 over a view of any codecs; sums are kept in float,
/// in double for double. Backward takes float and double.
struct attention {
  /// Never less for a larger call of the same kind: one buffer for the largest serves all.
  template <query_element T, class View>
  std::int64_t workspace_bytes(query_rows<T> const& q, View const& view,
                               std::int32_t num_shares) const noexcept {
    return detail::forward_bytes<true>(q, view, num_shares);
  }
  template <std::floating_point T, class View>
  std::int64_t backward_workspace_bytes(query_rows<T> const& q, View const& view,
                                        std::int32_t num_shares) const noexcept {
    return blocked_attention{}.backward_workspace_bytes(q, view, num_shares);
  }

  template <query_element T, class View>
  status partial(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    return detail::forward_partial<true>(part, q, view, workspace);
  }
  template <query_element T, class View>
  status combine(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    return detail::forward_combine<true>(part, q, view, workspace);
  }

  template <std::floating_point T, class View>
  status backward(share part, query_rows<T> const& q, View const& view, T const* d_out, T* d_q,
                  kv_grad<accum_t<T>> const& grad, std::span<std::byte> workspace) const noexcept {
    return blocked_attention{}.backward(part, q, view, d_out, d_q, grad, workspace);
  }
};

}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
