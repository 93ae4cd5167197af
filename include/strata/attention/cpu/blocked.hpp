// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention on the CPU in blocks: what cpu::attention does with prompts and backward, and a kernel
// of its own for those who want the same bits however a sequence is cut into calls.
//
// Tiles of 96 query rows and more (rows x query heads of one KV head) meet tiles of 64 keys, decoded
// once for all of them. Strips of rows go all the way from scores to sums one after the other. Scores
// lie transposed, [keys][rows]: rows are the vector lanes, so that softmax never sums across lanes, K
// needs no transposition, and a single row in decode goes through the same sums as one of many. What
// costs time is one small matrix product, `multiply`.
//
// Versions, by the time they take: one thread of an Emerald Rapids, 32 query heads on 8 KV heads of
// 128 in float, a prompt of 512 and of 2048 tokens, and backward of 2048:
//
//   each step over all of a tile, which has 96 rows            1      1      1
//   tiles of 288 rows                                         0.93   0.89   0.88
//   forward strip by strip, whose scores stay in level 1;
//   rows are rescaled where the product begins, and the first
//   split needs no merging                                    0.88   0.86   0.88
//   blocks of a product inlined, begun without a branch       0.82   0.81   0.84
//   576 rows in forward; queries and output asked for ahead   0.79   0.79
//   - queries in the order of memory, divided by less often   0.77   0.78   0.82
//
// The same steps but for the rows gain 0.88 and 0.94 there without AVX512FP16, 0.95 with AVX2. No
// faster: the next keys asked for, into level 2, while strips are computed.
//
// Bits: a row meets its keys in tiles of 64 from key_begin on, and these in splits of 512 whose
// states are merged in ascending order. Nothing else enters its sums; keys that it does not see add
// exact zeros or nothing. So a full pass, chunks, token by token, any batch and any number of shares
// give the same bits (law 5), and whether the splits of a tile ran in one share or in many cannot be
// seen. These are the bits of one build: compilers fuse multiplications and additions as their flags
// say, so units that serve one model must be compiled alike.
//
// Bound: of each tensor that a call in float writes (out, lse, the gradients), the largest error is
// at most twice that of the naive computation in float, which is reference_attention, and one
// rounding (2^-24) of the largest element. (Now and then a naive sum rounds to nearly nothing by
// luck: one of a thousand tensors exceeds the bound then, by up to 2.2 times.) Parts of the keys that
// are merged (law 9) are within 8 roundings of the whole, times 1 + |lse| for lse, and times
// 1 + |out| more for out.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <strata/attention/cpu/blocked_backward.hpp>
#include <strata/attention/cpu/forward_call.hpp>
#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {

/// Queries of float or double over a view of any codecs. Shares of a forward call take row tiles of
/// about equal work, and the splits of heavy ones; shares of a backward call take (sequence, KV
/// head) pairs, so that every dk and dv has one writer, whose sums run over ascending rows.
struct blocked_attention {
  /// Never less for a larger call of the same kind: one buffer for the largest serves all.
  template <std::floating_point T, class View>
  std::int64_t workspace_bytes(query_rows<T> const& q, View const& view,
                               std::int32_t num_shares) const noexcept {
    return detail::forward_bytes<false>(q, view, num_shares);
  }
  template <std::floating_point T, class View>
  std::int64_t backward_workspace_bytes(query_rows<T> const&, View const& view,
                                        std::int32_t num_shares) const noexcept {
    auto const shares = detail::larger(num_shares, 1);
    auto const elements = detail::backward_pass<T, View>::size(view) * shares;
    return elements * static_cast<std::int64_t>(sizeof(T)) + workspace_slack;
  }

  template <std::floating_point T, class View>
  status partial(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    return detail::forward_partial<false>(part, q, view, workspace);
  }
  template <std::floating_point T, class View>
  status combine(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    return detail::forward_combine<false>(part, q, view, workspace);
  }

  template <std::floating_point T, class View>
  status backward(share part, query_rows<T> const& q, View const& view, T const* d_out, T* d_q,
                  kv_grad<accum_t<T>> const& grad, std::span<std::byte> workspace) const noexcept {
    if (auto const s = check(part); !s.ok()) return s;
    if (auto const s = check(q, view, d_out, d_q); !s.ok()) return s;
    auto const needed = backward_workspace_bytes(q, view, part.nth);
    if (auto const s = strata::detail::check_workspace(workspace, needed); !s.ok()) return s;
    auto* const memory = reinterpret_cast<T*>(workspace_start(workspace));
    detail::backward_pass<T, View> pass(
        q, view, d_out, d_q, grad, memory + part.ith * detail::backward_pass<T, View>::size(view));
    auto const pairs = std::int64_t{q.num_seqs} * view.kv_heads;
    for (auto pair = part.begin(pairs); pair < part.end(pairs); ++pair)
      pass.run(static_cast<std::int32_t>(pair / view.kv_heads),
               static_cast<std::int32_t>(pair % view.kv_heads));
    return {};
  }
};

}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
