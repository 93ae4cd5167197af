// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where the tensors of a server on a device lie: one allocation, taken once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config.hpp"
#include "cuda/arena.hpp"
#include "cuda/block_ops.hpp"

namespace lm::cuda {

/// The tensors of a step, for `rows` rows.
class serving_memory : arena {
 public:
  bfloat16 *x = nullptr, *h = nullptr;            ///< [rows, dim], residual stream and normed
  bfloat16 *kept_x = nullptr, *kept_h = nullptr;  ///< [rows, dim], for those that stay alive
  bfloat16* projected = nullptr;               ///< [rows, q_dim + 2 kv_dim], as products leave them
  bfloat16* k = nullptr;                       ///< [rows, kv_dim], K after its norm
  bfloat16 *q = nullptr, *attended = nullptr;  ///< [rows, q_dim], Q after RoPE; what it found
  bfloat16* mlp = nullptr;                     ///< [rows, 2 mlp], gate and up
  bfloat16* act = nullptr;                     ///< [rows, mlp]
  float* logits = nullptr;                     ///< [logit_slab, vocab]
  std::int32_t* numbers = nullptr;             ///< [numbers_for(rows)], tokens and rows to gather

  static std::int64_t bytes(model_config const& c, std::int64_t rows, std::int64_t logit_slab) {
    serving_memory counted;
    counted.assign(c, rows, logit_slab);
    return counted.taken();
  }
  serving_memory() = default;
  /// Points into memory of so many bytes, which the caller owns.
  serving_memory(model_config const& c, std::int64_t rows, std::int64_t logit_slab,
                 std::byte* memory)
      : arena(memory) {
    assign(c, rows, logit_slab);
  }

  /// A token for each row, and those that stay at each layer and for the logits.
  static std::int64_t numbers_for(model_config const& c, std::int64_t rows) noexcept {
    return (c.layers + std::int64_t{2}) * rows;
  }

 private:
  void assign(model_config const& c, std::int64_t rows, std::int64_t logit_slab) {
    for (auto* const t : {&x, &h, &kept_x, &kept_h}) take(*t, rows * c.dim);
    take(projected, rows * (c.q_dim() + 2 * std::int64_t{c.kv_dim()}));
    if (c.qk_norm) take(k, rows * c.kv_dim());
    for (auto* const t : {&q, &attended}) take(*t, rows * c.q_dim());
    take(mlp, rows * 2 * c.mlp);
    take(act, rows * c.mlp);
    take(logits, logit_slab * c.vocab);
    take(numbers, numbers_for(c, rows));
  }
};

}  // namespace lm::cuda
