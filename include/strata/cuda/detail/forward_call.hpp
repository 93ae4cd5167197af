// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the host decides about a forward call: which kernels run, how wide, in how much memory. It
// knows shapes and bounds; lengths and offsets are the device's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/chunk_reader.hpp>
#include <strata/cuda/detail/decode_fma.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/tile_reader.hpp>
#include <strata/detail/key_range.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

/// What a call may meet at most, where only the device knows lengths and offsets: what workspace
/// and launches are sized by. In a captured graph they hold for every replay.
struct launch_bounds {
  std::int32_t rows = 0;          ///< query rows of all sequences; 0: num_seqs * rows_per_seq
  std::int32_t rows_per_seq = 0;  ///< of one sequence; 0: those of the queries, or `rows`
  std::int32_t keys = 0;          ///< tokens of one sequence; 0: what its blocks have room for
};

namespace detail {

/// The same with nothing left open.
struct call_bounds {
  std::int64_t rows = 0, rows_per_seq = 0, keys = 0;
};

template <class T, class View>
constexpr call_bounds bounds_of(query_rows<T> const& q, View const& view,
                                launch_bounds const& given) noexcept {
  bool const uniform = q.offsets == nullptr;
  auto const of_seq = uniform                  ? q.rows_per_seq
                      : given.rows_per_seq > 0 ? given.rows_per_seq
                                               : given.rows;
  auto const all = uniform || given.rows == 0 ? std::int64_t{q.num_seqs} * of_seq : given.rows;
  auto const room = smaller(view.k.capacity(), view.v.capacity());
  auto keys = given.keys > 0 ? smaller<std::int64_t>(given.keys, room) : room;
  if (view.rows.lengths == nullptr) keys = view.rows.length;
  return {all, of_seq, keys};
}

/// Refuses bounds that say nothing (without offsets the queries bound themselves), and more rows
/// than they allow, where the host knows how many there are.
template <class T, class View>
constexpr status check_bounds(query_rows<T> const& q, View const& view,
                              launch_bounds const& given) noexcept {
  if (given.rows < 0 || given.rows_per_seq < 0 || given.keys < 0)
    return {errc::value_too_small, no_layer,
            smaller(given.rows, smaller(given.rows_per_seq, given.keys)), 0};
  if (q.offsets != nullptr && given.rows == 0 && given.rows_per_seq == 0)
    return {errc::bounds_missing, no_layer, q.num_seqs, 0};
  if (q.offsets == nullptr) return {};
  auto const most = bounds_of(q, view, given);
  if (q.known_rows > most.rows)
    return {errc::rows_beyond_bounds, no_layer, q.known_rows, most.rows};
  if (q.known_rows_per_seq > most.rows_per_seq)
    return {errc::rows_beyond_bounds, no_layer, q.known_rows_per_seq, most.rows_per_seq};
  return {};
}

/// Whether matrix kernels can read a view: rows on 16-byte boundaries, scales that fit into one
/// copy.
template <class Codec>
bool tiles_aligned(tensor_blocks const& blocks, std::int32_t dim) noexcept {
  if (!rows_aligned(blocks)) return false;
  auto const bytes = Codec::scale_bytes(dim);
  if (bytes == 0 || head_scaled_codec<Codec>) return true;
  auto const copy = bytes % 16 == 0 ? 16 : bytes;
  auto const bits =
      reinterpret_cast<std::uintptr_t>(blocks.scales) |
      static_cast<std::uintptr_t>(blocks.scale_stride.block | blocks.scale_stride.token |
                                  blocks.scale_stride.head);
  return (copy == 4 || copy == 8 || copy == 16) && bits % static_cast<std::uintptr_t>(copy) == 0;
}

/// Whether matrix kernels of head_dim Dim can serve a call.
template <std::int32_t Dim, class T, class View>
bool fits_tiles(query_rows<T> const& q, View const& view) noexcept {
  using k_codec = typename View::k_codec;
  using v_codec = typename View::v_codec;
  if constexpr (tiled_call<View, T, Dim>) {
    // Decode reads words of a query; prefill copies rows of 16 bytes, as it does those of outputs.
    auto const rows =
        reinterpret_cast<std::uintptr_t>(q.q) | reinterpret_cast<std::uintptr_t>(q.out);
    return rows % 16 == 0 && view.k_dim == Dim && view.v_dim == Dim &&
           tiles_aligned<k_codec>(view.k, Dim) && tiles_aligned<v_codec>(view.v, Dim);
  } else {
    return false;
  }
}

/// Pairs of a row and a query head up to which a sequence is decoded where there is a prefill
/// kernel as well: to decode, K and V are read once more for every 16 of them; prefill, whose
/// blocks take 128, leaves most of a block idle.
inline constexpr std::int32_t most_decoded_pairs = 64;

/// Blocks of a launch that takes row blocks of `block_rows` pairs, or tokens, in turn: as many as
/// there can be, so that the device balances them; from some number on they take more than one
/// each.
constexpr std::int64_t blocks_for(std::int64_t num_seqs, std::int64_t rows, std::int32_t kv_heads,
                                  std::int32_t block_rows) noexcept {
  constexpr std::int64_t most = 1 << 20;
  return smaller((num_seqs + rows / block_rows) * kv_heads, most);
}

/// How the keys of the decoded sequences are split. `width`: blocks of the launch.
struct decode_shape {
  split_rule split;
  std::int64_t states = 0;
  std::int64_t workspace = 0;
};

template <class T, class View>
constexpr decode_shape decode_shape_of(query_rows<T> const& q, View const& view,
                                       call_bounds const& bounds, std::int32_t block_rows,
                                       std::int32_t width, std::int32_t fixed_keys,
                                       std::int32_t most_pairs) noexcept {
  decode_shape shape;
  shape.split.block_rows = block_rows;
  shape.split.parts = width;
  shape.split.fixed = fixed_keys > 0;
  if (fixed_keys > 0) shape.split.unit_keys = fixed_keys;
  shape.split.most_pairs = most_pairs;
  shape.states = most_states(shape.split, q.num_seqs, bounds.rows, bounds.keys,
                             q.q_heads / view.kv_heads, view.kv_heads);
  shape.workspace = state_memory::bytes(shape.states, block_rows, view.v_dim) + workspace_slack;
  return shape;
}

template <class T, class View>
forward_args<T, View> forward_args_of(query_rows<T> const& q, View const& view,
                                      split_rule const& split,
                                      std::span<std::byte> workspace) noexcept {
  forward_args<T, View> args;
  args.q = q;
  args.view = view;
  args.rule = {q.rule, view.k_dim};
  args.split = split;
  args.states = {reinterpret_cast<float*>(workspace_start(workspace)), split.block_rows,
                 view.v_dim};
  return args;
}

}  // namespace detail
}  // namespace cuda

STRATA_NAMESPACE_END
