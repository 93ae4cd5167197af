// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention kernels whose bodies run thread by thread on the host, and calls of 16 bits to hold
// them against the reference in double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/kernel.hpp>
#include <strata/cuda/detail/prefill_mma.hpp>

#include "attention_cases.hpp"
#include "half_call.hpp"
#include "simt.hpp"

namespace support {

/// How kernels are launched. The results must not depend on it.
struct simt_launch {
  std::int32_t blocks = 3;
  simt::order order = simt::order::ascending;
  simt::arrival copies = simt::arrival::at_wait;

  /// Another one for every case.
  static simt_launch of(std::int32_t number) {
    return {1 + number % 7, simt::order_of(number), simt::arrival_of(number)};
  }
  template <class Body>
  void run(std::int32_t threads, std::int64_t shared_bytes, Body const& body) const {
    simt::launch({blocks, threads, shared_bytes}, body, order, copies);
  }
};

/// prefill_mma_body as an attention kernel.
template <std::int32_t Dim>
struct simt_prefill {
  simt_launch launch;
  std::int32_t least_pairs = 1, most_pairs = 1 << 30;

  template <class T, class View>
  std::int64_t workspace_bytes(strata::query_rows<T> const&, View const&,
                               std::int32_t) const noexcept {
    return 0;
  }
  template <class T, class View>
  strata::status partial(strata::share, strata::query_rows<T> const& q, View const& view,
                         std::span<std::byte>) const noexcept {
    namespace gpu = strata::cuda::detail;
    gpu::forward_args<T, View> args;
    args.q = q;
    args.view = view;
    args.rule = {q.rule, view.k_dim};
    args.split = gpu::prefill_split(least_pairs, most_pairs);
    launch.run(
        gpu::prefill_threads,
        gpu::schedule_bytes(gpu::prefill_threads) + gpu::prefill_memory<T, View, Dim>::bytes(),
        [&](simt::block const& b) { gpu::prefill_mma_body<Dim>(b, args); });
    return {};
  }
  template <class T, class View>
  strata::status combine(strata::share, strata::query_rows<T> const&, View const&,
                         std::span<std::byte>) const noexcept {
    return {};
  }
};

/// The unit roundoff of T: 2^-8 of bfloat16, 2^-11 of float16, 2^-24 of float.
template <class T>
inline constexpr double roundoff = std::is_same_v<T, strata::bfloat16>  ? 0x1p-8
                                   : std::is_same_v<T, strata::float16> ? 0x1p-11
                                                                        : 0x1p-24;

}  // namespace support
