// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The cache storage: where K and V live, and in which bits. It keeps sequences, each with the plan
// that says which layers have a tensor, and grows them all or nothing.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/ids.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// As a first position: where the sequence left off.
inline constexpr std::int32_t continue_position = -1;

/// What one sequence wants to grow by in a step.
struct growth {
  sequence_id sequence = no_sequence;
  std::int32_t new_tokens = 1;
  std::int32_t first_position = continue_position;  ///< may leave a gap, never go back
};

/// Memory of the caller for a storage to use instead of its own: 64-byte aligned, one allocation
/// for all K and one for all V, which do not overlap and outlive the storage.
struct borrowed_memory {
  std::span<std::byte> k = {};
  std::span<std::byte> v = {};
  bool on_device = false;  ///< the host cannot reach it
};

/// Scales of head-scaled codecs, for a storage to copy: [num_layers, kv_heads], kv_heads being the
/// most that a layer with K/V has; what lies beyond a layer's own is not looked at. Empty: all 1.
struct head_scales {
  std::span<float const> k = {};
  std::span<float const> v = {};
};

/// The positions of all tokens that a storage holds, a row per sequence id; null where token t of
/// every sequence stands at position t.
struct position_table {
  std::int32_t const* data = nullptr;  ///< [max_sequences, stride]
  std::int64_t stride = 0;
};

/// Bytes of all blocks of a storage.
struct pool_bytes {
  std::int64_t k = 0;
  std::int64_t v = 0;
};

/// A sequence as it was elsewhere: all but its K and V.
struct imported_sequence {
  route_plan plan = {};
  std::int32_t length = 0;
  std::span<std::int32_t const> positions = {};  ///< [length], ascending; empty: 0, 1, ...
  /// [2, num_layers], of K and then of V: the first token of each layer that is still there, since
  /// windows let go of others; empty: 0.
  std::span<std::int32_t const> first_tokens = {};
  bool approximate = false;  ///< some of its K and V are not what the plan computes
};

/// Numbers of blocks.
struct pool_blocks {
  std::int32_t k = 0;
  std::int32_t v = 0;
};

/// Tables of a storage that live as long as it does and change a few numbers a step.
struct storage_tables {
  std::span<std::int32_t const> k_blocks = {};   ///< [rows, blocks_per_row], where there are tables
  std::span<std::int32_t const> v_blocks = {};   ///< the same of V
  std::span<std::int32_t const> positions = {};  ///< [max_sequences, positions_per_row]
  std::int64_t positions_per_row = 0;
  std::span<float const> k_scales = {};  ///< [num_layers, KV heads], of head-scaled codecs
  std::span<float const> v_scales = {};
};

/// A storage is a move-only owner of sequences and their tensors.
///
/// - `open(plan)` takes a sequence in, `close(id)` lets it go; neither may happen during a step.
/// - `reserve(growths)` finds room for every new token, or changes nothing and says how many
///   blocks are missing, of K or of V, whichever lacks more; `commit()` makes the tokens part of
///   the sequences, `abandon()` undoes the reservation.
/// - `length` and `next_position` are those of committed tokens. They differ once positions had
///   gaps.
/// - `k_blocks(source)` is where the K that a layer stores lies, and `k_row(sequence, source)` its
///   row there, asked for sequences that hold tokens; the same for V. Where sequences of one batch
///   read different sources, those must lie in the same blocks, or the step is refused: one call
///   reads one allocation.
/// - `k_head_scales(layer)`, `v_head_scales(layer)`, of a storage that has them: the scales that a
///   step writes beside the layer's rows. Without them, all are 1.
/// - Threads: const calls at the same time; any other call alone. Rows of a step: see `kv_run`.
template <class S>
concept cache_storage = kv_codec<typename S::k_codec> && kv_codec<typename S::v_codec> &&
                        requires(S& s, S const& c, route_plan const& plan, sequence_id id,
                                 layer_id layer, std::span<growth const> growths) {
                          { c.classes() } noexcept -> std::same_as<kv_classes const&>;
                          { s.open(plan) } noexcept -> std::same_as<result<sequence_id>>;
                          { s.close(id) } noexcept -> std::same_as<status>;
                          { c.plan(id) } noexcept -> std::same_as<route_plan const&>;
                          { c.length(id) } noexcept -> std::same_as<std::int32_t>;
                          { c.next_position(id) } noexcept -> std::same_as<std::int32_t>;
                          { s.reserve(growths) } noexcept -> std::same_as<status>;
                          { s.commit() } noexcept -> std::same_as<void>;
                          { s.abandon() } noexcept -> std::same_as<void>;
                          { s.k_blocks(layer) } noexcept -> std::same_as<writable_blocks>;
                          { s.v_blocks(layer) } noexcept -> std::same_as<writable_blocks>;
                          { c.k_row(id, layer) } noexcept -> std::same_as<std::int32_t>;
                          { c.v_row(id, layer) } noexcept -> std::same_as<std::int32_t>;
                          { c.positions() } noexcept -> std::same_as<position_table>;
                        };

/// Whether the K and V of a storage lie where the host cannot reach them: it says so by a constant
/// `on_device`. Runs of its steps write nothing; kernels do (cuda/step_mirror.cuh).
template <class S>
inline constexpr bool on_device = requires { requires S::on_device; };

/// A storage that sets the scales of head-scaled codecs. float const*, [kv_heads], or null: all 1.
template <class S>
concept head_scaled_storage = cache_storage<S> && requires(S const& c, layer_id layer) {
  { c.k_head_scales(layer) } noexcept;
  { c.v_head_scales(layer) } noexcept;
};

STRATA_NAMESPACE_END
