// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the host decides about a backward call.
#pragma once

#include <cstdint>

#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/backward_kernels.hpp>
#include <strata/cuda/detail/forward_call.hpp>
#include <strata/detail/key_range.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

template <class T, class View>
backward_args<T, View> backward_args_of(query_rows<T> const& q, View const& view, T const* d_out,
                                        T* d_q, kv_grad<float> const& grad) noexcept {
  backward_args<T, View> args;
  args.q = q;
  args.view = view;
  args.rule = {q.rule, view.k_dim};
  args.d_out = d_out;
  args.d_q = d_q;
  args.grad = grad;
  return args;
}

/// K and V of the queries' own 16 bits, as a trainer has them.
template <class View, class T>
concept trained_view = half_element<T> && std::same_as<typename View::k_codec, plain_codec<T>> &&
                       std::same_as<typename View::v_codec, plain_codec<T>>;

/// The same for heads of Dim: warps copy 4 rows at a time, a whole number of 16 bytes to a lane.
template <class View, class T, std::int32_t Dim>
concept trained_call = trained_view<View, T> && Dim % 64 == 0;

/// Shared memory of the launch that owns tokens, and of that which owns queries.
template <std::int32_t Dim, bool Sums, class T, class View>
constexpr std::int32_t backward_tokens_bytes =
    schedule_bytes(backward_threads) + backward_tokens_memory<T, View, Dim, Sums>::bytes();
template <std::int32_t Dim, class T, class View>
constexpr std::int32_t backward_queries_bytes =
    schedule_bytes(backward_threads) + backward_queries_memory<T, View, Dim>::bytes();

/// Whether kernels of matrix products can serve a call, with sums of dQ or without, on a device
/// whose blocks may have so much shared memory. All rows lie on 16-byte boundaries.
template <std::int32_t Dim, class T, class View>
bool fits_backward(backward_args<T, View> const& args, bool sums,
                   std::int32_t shared_bytes) noexcept {
  if constexpr (trained_call<View, T, Dim>) {
    auto const tokens = sums ? backward_tokens_bytes<Dim, true, T, View>
                             : backward_tokens_bytes<Dim, false, T, View>;
    if (larger(tokens, backward_queries_bytes<Dim, T, View>) > shared_bytes) return false;
    auto const rows =
        reinterpret_cast<std::uintptr_t>(args.d_out) | reinterpret_cast<std::uintptr_t>(args.d_q);
    return rows % 16 == 0 && fits_tiles<Dim>(args.q, args.view);
  } else {
    return false;
  }
}

/// The first launch of every backward call.
template <class Launcher, class T, class View>
status start_prepare(Launcher const& launcher, backward_args<T, View> const& args,
                     call_bounds const& limits) noexcept {
  auto const pairs = limits.rows * (args.q.q_heads / args.view.kv_heads);
  auto const blocks = blocks_for(args.q.num_seqs, pairs, args.view.kv_heads, prepare_threads);
  return launcher.template start<backward_prepare_kernel>(blocks, schedule_bytes(prepare_threads),
                                                          args);
}

/// Blocks of the launches that take tokens, and queries, `rows` at a time.
struct backward_width {
  std::int64_t tokens = 0, queries = 0;

  template <class T, class View>
  backward_width(backward_args<T, View> const& args, call_bounds const& limits,
                 std::int32_t rows) noexcept
      : tokens(
            blocks_for(args.q.num_seqs, limits.keys * args.q.num_seqs, args.view.kv_heads, rows)),
        queries(blocks_for(args.q.num_seqs, limits.rows * (args.q.q_heads / args.view.kv_heads),
                           args.view.kv_heads, rows)) {}
};

template <std::int32_t Dim, class Launcher, class T, class View>
status start_backward(Launcher const& launcher, backward_args<T, View> const& args,
                      call_bounds const& limits) noexcept {
  if constexpr (trained_call<View, T, Dim>) {
    if (auto const s = start_prepare(launcher, args, limits); !s.ok()) return s;
    backward_width const blocks(args, limits, backward_rows);
    if (args.d_q_sums != nullptr) {
      auto const s = launcher.template start<backward_tokens_mma_kernel<Dim, true>>(
          blocks.tokens, backward_tokens_bytes<Dim, true, T, View>, args);
      if (!s.ok()) return s;
      return launcher.template start<backward_sums_kernel<Dim>>(
          backward_width(args, limits, backward_sums_rows).queries, backward_sums_bytes<Dim>, args);
    }
    if (args.wants_tokens()) {
      auto const s = launcher.template start<backward_tokens_mma_kernel<Dim, false>>(
          blocks.tokens, backward_tokens_bytes<Dim, false, T, View>, args);
      if (!s.ok()) return s;
    }
    return launcher.template start<backward_queries_mma_kernel<Dim>>(
        blocks.queries, backward_queries_bytes<Dim, T, View>, args);
  } else {
    return {errc::unsupported};
  }
}

template <std::int32_t Chunks, class Launcher, class T, class View>
status start_chunked_backward(Launcher const& launcher, backward_args<T, View> const& args,
                              backward_width const& blocks) noexcept {
  constexpr auto line = schedule_bytes(backward_fma_threads);
  if (args.wants_tokens()) {
    auto const s =
        launcher.template start<backward_tokens_fma_kernel<Chunks>>(blocks.tokens, line, args);
    if (!s.ok()) return s;
  }
  return launcher.template start<backward_queries_fma_kernel<Chunks>>(blocks.queries, line, args);
}

/// By plain multiply-adds: slow, for all other types, codecs and heads.
template <class Launcher, class T, class View>
status start_plain_backward(Launcher const& launcher, backward_args<T, View> const& args,
                            call_bounds const& limits) noexcept {
  if (auto const s = start_prepare(launcher, args, limits); !s.ok()) return s;
  backward_width const blocks(args, limits, backward_fma_threads / warp_size);
  bool const short_heads = larger(args.view.k_dim, args.view.v_dim) <= chunk_elements * warp_size;
  return short_heads ? start_chunked_backward<1>(launcher, args, blocks)
                     : start_chunked_backward<most_fma_chunks>(launcher, args, blocks);
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
