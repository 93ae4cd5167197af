// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include <strata/config.hpp>
#include <strata/detail/block_storage.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

/// Room of a paged storage. A block holds block_size tokens of the K (or V) of one stored layer of
/// one sequence.
struct paged_options {
  std::int32_t max_sequences = 1;
  std::int32_t max_tokens = 0;   ///< per sequence; sizes the block tables, not the blocks
  std::int32_t block_size = 16;  ///< tokens
  std::int32_t k_blocks = 0;
  std::int32_t v_blocks = 0;

  /// Enough for one sequence of each plan; where that is more blocks than 32 bits count, the most
  /// that they do.
  static constexpr paged_options for_plans(std::span<route_plan const> plans,
                                           std::int32_t max_tokens,
                                           std::int32_t block_size = 16) noexcept {
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    std::int64_t const per_tensor =
        max_tokens < 1 || block_size < 1 ? 0 : detail::ceil_divide(max_tokens, block_size);
    std::int64_t k = 0, v = 0;
    for (auto const& plan : plans) {
      k = detail::smaller(k + plan.k_slots * per_tensor, most);
      v = detail::smaller(v + plan.v_slots * per_tensor, most);
    }
    return {static_cast<std::int32_t>(plans.size()), max_tokens, block_size,
            static_cast<std::int32_t>(k), static_cast<std::int32_t>(v)};
  }
};

/// Blocks of [block_size, kv_heads, dim] from two pools, one for K and one for V, handed out as
/// sequences grow. Sequences of any depth share the pools, so one batch can mix them. All blocks
/// are as large as those of the largest layer kind.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
class paged_storage : public detail::block_storage<KCodec, VCodec> {
  using base = detail::block_storage<KCodec, VCodec>;

 public:
  /// Allocates everything at once. With `memory`, uses that instead of its own. `scales` are those
  /// of head-scaled codecs.
  static result<paged_storage> make(kv_classes const& classes, paged_options const& options,
                                    borrowed_memory memory = {},
                                    head_scales const& scales = {}) noexcept {
    paged_storage storage;
    auto const s = storage.prepare(classes,
                                   {options.max_sequences, options.max_tokens, options.block_size,
                                    options.k_blocks, options.v_blocks},
                                   memory, scales);
    if (!s.ok()) return s;
    return result<paged_storage>(std::move(storage));  // nvcc 13 does not move by itself
  }

#if STRATA_HAS_EXCEPTIONS
  /// `make`, or throws `error`.
  paged_storage(kv_classes const& classes, paged_options const& options,
                borrowed_memory memory = {}, head_scales const& scales = {})
      : paged_storage(make(classes, options, memory, scales).value()) {}
#endif

  writable_blocks k_blocks(layer_id layer) noexcept {
    return this->k_pool_.paged(this->k_shape(layer));
  }
  writable_blocks v_blocks(layer_id layer) noexcept {
    return this->v_pool_.paged(this->v_shape(layer));
  }
  std::int32_t k_row(sequence_id id, layer_id source) const noexcept {
    return static_cast<std::int32_t>(this->table_row(id, source));
  }
  std::int32_t v_row(sequence_id id, layer_id source) const noexcept { return k_row(id, source); }

 private:
  paged_storage() noexcept = default;
};

STRATA_NAMESPACE_END
