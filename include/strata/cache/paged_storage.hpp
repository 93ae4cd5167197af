// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/detail/block_storage.hpp>

STRATA_NAMESPACE_BEGIN

/// Room of a paged storage. A block holds block_size tokens of the K (or V) of one stored layer of
/// one sequence.
struct paged_options {
  std::int32_t max_sequences = 1;
  std::int32_t max_tokens = 0;   ///< per sequence; sizes the block tables, not the blocks
  std::int32_t block_size = 16;  ///< tokens
  std::int32_t k_blocks = 0;
  std::int32_t v_blocks = 0;
};

/// Blocks of [block_size, kv_heads, dim] from two pools, one for K and one for V, handed out as
/// sequences grow. Sequences of any depth share the pools, so one batch can mix them. All blocks
/// are as large as those of the largest layer kind.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
class paged_storage : public detail::block_storage<KCodec, VCodec> {
  using base = detail::block_storage<KCodec, VCodec>;

 public:
  /// Allocates everything at once. With `memory`, uses that instead of its own.
  static result<paged_storage> make(kv_classes const& classes, paged_options const& options,
                                    borrowed_memory memory = {}) noexcept {
    paged_storage storage;
    auto const s = storage.prepare(classes,
                                   {options.max_sequences, options.max_tokens, options.block_size,
                                    options.k_blocks, options.v_blocks},
                                   memory);
    if (!s.ok()) return s;
    return storage;
  }

#if STRATA_HAS_EXCEPTIONS
  /// `make`, or throws `error`.
  paged_storage(kv_classes const& classes, paged_options const& options,
                borrowed_memory memory = {})
      : paged_storage(make(classes, options, memory).value()) {}
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
