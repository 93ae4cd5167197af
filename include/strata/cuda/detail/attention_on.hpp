// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The attention kernel of devices, whatever starts its launches: a stream, or a test's blocks of
// threads on the host.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/backward_call.hpp>
#include <strata/cuda/detail/forward_call.hpp>
#include <strata/cuda/detail/forward_kernels.hpp>
#include <strata/executor.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// Launcher: `start<Body>(blocks, shared bytes, args)` -> status, noexcept.
/// Dims: the head_dims that have kernels of matrix products.
template <class Launcher, std::int32_t... Dims>
struct attention_on {
  Launcher launcher = {};
  launch_bounds bounds = {};
  /// Keys of a split in decode. 0: as the device is best filled; else the bits of a sequence depend
  /// on it alone (law 5), with 512 at no great price. Prefill and backward always have that.
  std::int32_t split_keys = 0;
  /// Backward by matrix products: the same bits from call to call, by 7 products. False: dQ is
  /// added up by atomic additions of floats while dK and dV are computed, 5 products; the last bits
  /// of dQ then differ from call to call, those of dK and dV do not. Costs workspace, 4 bytes for
  /// every element of dQ and of up to 32 rows more per sequence and KV head: cleared, added to by
  /// every 128 keys, and read once. Where only dQ is wanted, and by plain multiply-adds, it changes
  /// nothing.
  bool deterministic = true;
  std::int32_t multiprocessors = 108;     ///< of the device
  std::int32_t shared_bytes = 163 << 10;  ///< that a block of the device may have: 163 KB of sm_80

  template <query_element T, class View>
  std::int64_t workspace_bytes(query_rows<T> const& q, View const& view,
                               std::int32_t /*num_shares*/) const noexcept {
    return shape_of(q, view).workspace;
  }
  template <query_element T, class View>
  std::int64_t backward_workspace_bytes(query_rows<T> const& q, View const& view,
                                        std::int32_t /*num_shares*/) const noexcept {
    return backward_args<T, View>::workspace_bytes(q, view, bounds_of(q, view, bounds).rows,
                                                   may_sum<T>(view)) +
           workspace_slack;
  }

  /// Launches are one share's work: the others have none.
  template <query_element T, class View>
  status partial(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    decode_shape shape;
    if (auto const s = check_forward(part, q, view, workspace, shape); !s.ok() || part.ith > 0)
      return s;
    auto const args = forward_args_of(q, view, shape.split, workspace);
    if (!tiled(q, view)) return start_plain(args);
    status done;
    bool const found = ((fits<Dims>(q, view) && (done = start_tiled<Dims>(args), true)) || ...);
    return found ? done : status{errc::unsupported};
  }

  template <query_element T, class View>
  status combine(share part, query_rows<T> const& q, View const& view,
                 std::span<std::byte> workspace) const noexcept {
    decode_shape shape;
    if (auto const s = check_forward(part, q, view, workspace, shape); !s.ok() || part.ith > 0)
      return s;
    auto const args = forward_args_of(q, view, shape.split, workspace);
    if (!decodes(args)) return {};
    auto const row_blocks =
        blocks_for(q.num_seqs, bounds_of(q, view, bounds).rows * (q.q_heads / view.kv_heads),
                   view.kv_heads, shape.split.block_rows);
    auto const parts = ceil_divide(shape.split.block_rows, combined_pairs);
    std::int64_t const wide = multiprocessors * combine_kernel::blocks_per_multiprocessor;
    return launcher.template start<combine_kernel>(smaller(wide, row_blocks * parts),
                                                   schedule_bytes(decode_threads), args);
  }

  /// Three launches. Where `deterministic`, no number is added to by two blocks: the same bits
  /// whatever the launch.
  template <query_element T, class View>
  status backward(share part, query_rows<T> const& q, View const& view, T const* d_out, T* d_q,
                  kv_grad<accum_t<T>> const& grad, std::span<std::byte> workspace) const noexcept {
    static_assert(!stored_as<typename View::k_codec>::rotated,
                  "strata: there is no backward through rotated K on a device");
    if (auto const s = check_call(part, q, view); !s.ok()) return s;
    bool const rows = q.num_seqs > 0;  // how many, the host cannot know
    if (auto const s = strata::detail::check_gradients(rows, q, d_out, d_q); !s.ok()) return s;
    auto const needed = backward_workspace_bytes(q, view, part.nth);
    if (auto const s = strata::detail::check_workspace(workspace, needed); !s.ok()) return s;
    if (part.ith > 0) return {};
    auto const limits = bounds_of(q, view, bounds);
    auto args = backward_args_of(q, view, d_out, d_q, grad);
    bool const sums = may_sum<T>(view) && args.wants_tokens() &&
                      (fits_backward<Dims>(args, true, shared_bytes) || ...);
    args.use(workspace_start(workspace), limits.rows, sums);
    status done;
    bool const found = ((fits_backward<Dims>(args, sums, shared_bytes) &&
                         (done = start_backward<Dims>(launcher, args, limits), true)) ||
                        ...);
    return found ? done : start_plain_backward(launcher, args, limits);
  }

 private:
  template <class T, class View>
  status check_call(share part, query_rows<T> const& q, View const& view) const noexcept {
    static_assert(!std::same_as<T, double>, "strata: attention on a device keeps sums in float");
    static_assert(device_codec<typename stored_as<typename View::k_codec>::codec> &&
                      device_codec<typename View::v_codec>,
                  "strata: no cuda::chunk_reader reads rows of this codec");
    if (auto const s = check(part); !s.ok()) return s;
    if (auto const s = check_shape(q, view); !s.ok()) return s;
    if (auto const s = check_bounds(q, view, bounds); !s.ok()) return s;
    if (split_keys < 0) return {errc::value_too_small, no_layer, split_keys, 0};
    auto const dim = larger(view.k_dim, view.v_dim);
    if (dim > most_fma_dim) return {errc::head_too_large, no_layer, dim, most_fma_dim};
    return {};
  }
  /// Says what shape a call that can be has.
  template <class T, class View>
  status check_forward(share part, query_rows<T> const& q, View const& view,
                       std::span<std::byte> workspace, decode_shape& shape) const noexcept {
    if (auto const s = check_call(part, q, view); !s.ok()) return s;
    shape = shape_of(q, view);
    return strata::detail::check_workspace(workspace, shape.workspace);
  }

  template <class T, class View>
  std::int64_t most_pairs(query_rows<T> const& q, View const& view) const noexcept {
    return bounds_of(q, view, bounds).rows_per_seq * (q.q_heads / view.kv_heads);
  }

  /// Whether backward may sum dQ up: what its workspace is sized by, before anybody knows where
  /// gradients will lie.
  template <class T, class View>
  bool may_sum(View const& view) const noexcept {
    return !deterministic &&
           ((trained_call<View, T, Dims> && view.k_dim == Dims && view.v_dim == Dims) || ...);
  }

  template <std::int32_t Dim, class T, class View>
  static constexpr std::int32_t decode_bytes =
      schedule_bytes(decode_threads) + decode_tiles<T, View, Dim>::bytes();
  template <std::int32_t Dim, class T, class View>
  static constexpr std::int32_t prefill_bytes =
      schedule_bytes(prefill_threads) + prefill_memory<T, View, Dim>::bytes();

  /// Whether a device has the shared memory for matrix products of Dim, and a call the layout.
  template <std::int32_t Dim, class T, class View>
  bool fits(query_rows<T> const& q, View const& view) const noexcept {
    if constexpr (tiled_call<View, T, Dim>) {
      auto const needed = larger(decode_bytes<Dim, T, View>, prefill_bytes<Dim, T, View>);
      return needed <= shared_bytes && fits_tiles<Dim>(q, view);
    } else {
      return false;
    }
  }

  /// Whether matrix products serve a call: not where one query head has a KV head to itself, and
  /// one row, because 15 of 16 rows of the product would be empty. With splits of one size they do
  /// all the same: a neighbour of more rows must not change a sequence's bits.
  template <class T, class View>
  bool tiled(query_rows<T> const& q, View const& view) const noexcept {
    bool const single = most_pairs(q, view) <= 1 && split_keys == 0;
    return !single && (fits<Dims>(q, view) || ...);
  }

  template <class T, class View>
  decode_shape shape_of(query_rows<T> const& q, View const& view) const noexcept {
    bool const matrix = tiled(q, view);
    auto const blocks = matrix ? decode_mma_kernel<64>::blocks_per_multiprocessor
                               : decode_fma_kernel<1>::blocks_per_multiprocessor;
    return decode_shape_of(q, view, bounds_of(q, view, bounds), matrix ? fragment_rows : 1,
                           multiprocessors * blocks, split_keys,
                           matrix ? most_decoded_pairs : most_int32);
  }

  /// Whether any sequence can be one that is decoded: not where all have the same rows, and many.
  template <class T, class View>
  bool decodes(forward_args<T, View> const& args) const noexcept {
    return args.q.offsets != nullptr || most_pairs(args.q, args.view) <= args.split.most_pairs;
  }

  template <std::int32_t Dim, class T, class View>
  status start_tiled(forward_args<T, View> const& args) const noexcept {
    if constexpr (tiled_call<View, T, Dim>) {
      if (decodes(args)) {
        auto const s = launcher.template start<decode_mma_kernel<Dim>>(
            args.split.parts, schedule_bytes(decode_threads) + decode_tiles<T, View, Dim>::bytes(),
            args);
        if (!s.ok()) return s;
      }
      auto const most = most_pairs(args.q, args.view);
      if (most <= most_decoded_pairs) return {};
      auto prefill = args;
      prefill.split = prefill_split(most_decoded_pairs + 1, most_int32);
      auto const limits = bounds_of(args.q, args.view, bounds);
      auto const blocks =
          blocks_for(args.q.num_seqs, limits.rows * (args.q.q_heads / args.view.kv_heads),
                     args.view.kv_heads, prefill_rows);
      return launcher.template start<prefill_mma_kernel<Dim>>(blocks, prefill_bytes<Dim, T, View>,
                                                              prefill);
    } else {
      return {errc::unsupported};
    }
  }

  template <class T, class View>
  status start_plain(forward_args<T, View> const& args) const noexcept {
    bool const short_heads = larger(args.view.k_dim, args.view.v_dim) <= chunk_elements * warp_size;
    return short_heads ? start_plain<1>(args) : start_plain<most_fma_chunks>(args);
  }
  template <std::int32_t Chunks, class T, class View>
  status start_plain(forward_args<T, View> const& args) const noexcept {
    auto const results = fma_pair<Chunks, T, View>::shared_bytes(args.view.k_dim, args.view.v_dim);
    return launcher.template start<decode_fma_kernel<Chunks>>(
        args.split.parts, schedule_bytes(decode_threads) + static_cast<std::int32_t>(results),
        args);
  }
};

}  // namespace cuda::detail

STRATA_NAMESPACE_END
