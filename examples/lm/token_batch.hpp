// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

#include <strata/router.hpp>

#include "config.hpp"
#include "failure.hpp"

namespace lm {

/// The target of a row whose prediction does not count.
inline constexpr std::int32_t no_target = -1;

/// Sequences of one length and, for each token, the one to predict.
struct token_batch {
  std::int32_t const* inputs = nullptr;   ///< [num_seqs, length]
  std::int32_t const* targets = nullptr;  ///< [num_seqs, length], no_target of what does not count
  std::int32_t num_seqs = 0;
  std::int32_t length = 0;

  std::int64_t rows() const noexcept { return std::int64_t{num_seqs} * length; }
  /// Rows that count: what losses are means over. 1 where there is none, whose sum is 0.
  std::int64_t scored() const noexcept {
    std::int64_t count = 0;
    for (std::int64_t r = 0; r < rows(); ++r) count += targets[r] >= 0;
    return count > 0 ? count : 1;
  }
};

/// Refuses a batch that a pass of `most` has no room for, or tokens that the vocabulary does not have.
inline void require_batch(token_batch const& batch, strata::pass_shape most,
                          model_config const& config) {
  auto const room = std::int64_t{most.num_seqs} * most.length;
  if (batch.num_seqs < 1 || batch.length < 1 || batch.length > most.length || batch.rows() > room)
    throw failure("a batch of " + std::to_string(batch.num_seqs) + " sequences of " +
                  std::to_string(batch.length) + " tokens; there is room for 1 to " +
                  std::to_string(most.num_seqs) + " of at most " + std::to_string(most.length));
  for (std::int64_t r = 0; r < batch.rows(); ++r)
    if (batch.inputs[r] < 0 || batch.inputs[r] >= config.vocab || batch.targets[r] < no_target ||
        batch.targets[r] >= config.vocab)
      throw failure("token " + std::to_string(r) + " of a batch is not below the vocabulary's " +
                    std::to_string(config.vocab));
}

}  // namespace lm
