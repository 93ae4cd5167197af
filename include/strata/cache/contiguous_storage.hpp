// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <limits>

#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/detail/transferable_storage.hpp>

STRATA_NAMESPACE_BEGIN

/// Room of a contiguous storage. A tensor is the K (or V) of one stored layer of one sequence.
struct contiguous_options {
  std::int32_t max_sequences = 1;
  std::int32_t max_tokens = 0;  ///< per sequence
  std::int32_t k_tensors = 0;   ///< of all sequences together: sum of the plans' k_slots
  std::int32_t v_tensors = 0;

  /// Exactly enough for `sequences` sequences of one plan; where that is more tensors than 32 bits
  /// count, the most that they do.
  static constexpr contiguous_options for_plan(route_plan const& plan, std::int32_t sequences,
                                               std::int32_t max_tokens) noexcept {
    auto const tensors = [&](std::int64_t slots) {
      constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
      return static_cast<std::int32_t>(detail::smaller(slots * sequences, most));
    };
    return {sequences, max_tokens, tensors(plan.k_slots), tensors(plan.v_slots)};
  }
};

/// Every stored tensor is one run of max_tokens tokens, [max_tokens, kv_heads, dim]: the simplest
/// layout and the fastest to read, at the price of memory for tokens that may never come. A tensor
/// is taken with a sequence's first token. All tensors are as large as those of the largest layer
/// kind.
/// Threads: const calls at the same time; any other call alone.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
class contiguous_storage : public detail::transferable_storage<KCodec, VCodec> {
  using base = detail::transferable_storage<KCodec, VCodec>;

 public:
  /// Bytes of memory that is lent to a storage.
  static result<pool_bytes> memory_bytes(kv_classes const& classes,
                                         contiguous_options const& options) noexcept {
    return base::memory_of(classes, blocks_of(options));
  }

  /// Allocates everything at once. With `memory`, uses that instead of its own. `scales` are those
  /// of head-scaled codecs.
  static result<contiguous_storage> make(kv_classes const& classes,
                                         contiguous_options const& options,
                                         borrowed_memory memory = {},
                                         head_scales const& scales = {}) noexcept {
    contiguous_storage storage;
    auto const s = storage.prepare(classes, blocks_of(options), memory, scales);
    if (!s.ok()) return s;
    return result<contiguous_storage>(std::move(storage));  // nvcc 13 does not move by itself
  }

#if STRATA_HAS_EXCEPTIONS
  /// `make`, or throws `error`.
  contiguous_storage(kv_classes const& classes, contiguous_options const& options,
                     borrowed_memory memory = {}, head_scales const& scales = {})
      : contiguous_storage(make(classes, options, memory, scales).value()) {}
#endif

  writable_blocks k_blocks(layer_id layer) noexcept {
    return this->k_pool_.unpaged(this->k_shape(layer));
  }
  writable_blocks v_blocks(layer_id layer) noexcept {
    return this->v_pool_.unpaged(this->v_shape(layer));
  }
  std::int32_t k_row(sequence_id id, layer_id source) const noexcept {
    return this->k_pool_.block_of(this->table_row(id, source), 0);
  }
  std::int32_t v_row(sequence_id id, layer_id source) const noexcept {
    return this->v_pool_.block_of(this->table_row(id, source), 0);
  }

 private:
  static constexpr detail::block_options blocks_of(contiguous_options const& options) noexcept {
    return {options.max_sequences, options.max_tokens, options.max_tokens, options.k_tensors,
            options.v_tensors};
  }

  contiguous_storage() noexcept = default;
};

STRATA_NAMESPACE_END
