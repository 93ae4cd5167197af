// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Inference as callers see it, whatever the storage, the codec and the kernel: sequences, each with
// its plan, and steps of a batch. stack_server.hpp is how it is done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/plan.hpp>
#include <strata/stack.hpp>
#include <strata/status.hpp>

#include "config.hpp"

namespace lm {

/// One sequence's new tokens in a step, and which of them want logits.
struct feed {
  strata::sequence_id sequence = strata::no_sequence;
  std::span<std::int32_t const> tokens = {};
  strata::logits wanted = strata::logits::last;
};

/// What steps bring at most. A processor's server takes memory as it needs it; a device's takes it
/// when it is made, and refuses steps that bring more.
struct step_room {
  std::int32_t rows = 512;      ///< tokens of a step, all sequences together
  std::int32_t logit_rows = 1;  ///< those that want logits
};

/// What callers see of a server, whatever its storage, codec and kernel. All calls report errors as
/// a status and then have changed nothing, except for memory that grew.
template <class T>
class server {
 public:
  virtual ~server() = default;

  virtual model_config const& config() const noexcept = 0;
  virtual strata::result<strata::sequence_id> open(strata::route_plan const& plan) noexcept = 0;
  virtual strata::status close(strata::sequence_id id) noexcept = 0;

  /// One step of a batch: the tokens become part of their sequences. Memory grows with the largest
  /// batch seen; after that a step allocates nothing. (A device's is taken before the first step.)
  virtual strata::status run(std::span<feed const> batch) noexcept = 0;
  strata::status run(feed const& one) noexcept { return run(std::span(&one, 1)); }

  /// [rows that wanted logits, vocab] of the last step, sequences in batch order.
  virtual std::span<T const> logits() const noexcept = 0;

  /// Appends `count` tokens whose K and V are noise: a cache of that length without the prefill.
  virtual strata::status fill_with_noise(strata::sequence_id id, std::int32_t count) noexcept = 0;

  /// Tokens per sequence, sequences, and bytes of K/V memory, all as the storage has them.
  virtual std::int32_t max_tokens() const noexcept = 0;
  virtual std::int32_t max_sequences() const noexcept = 0;
  virtual std::int64_t allocated_bytes() const noexcept = 0;
  /// Bytes beside K and V that it holds by now: position tables, activations, logits, workspace.
  /// They grow with the largest batch seen. 0 where a server cannot tell.
  virtual std::int64_t working_bytes() const noexcept { return 0; }
  /// Tokens that a sequence holds.
  virtual std::int32_t length(strata::sequence_id id) const noexcept = 0;
};

/// Tokens of a prefill step: enough rows for the products, and bounded activations.
inline constexpr std::int32_t prefill_chunk = 512;

/// Appends a prompt, `chunk` tokens a step, which bounds the memory for activations. The logits are
/// those of its last token.
template <class T>
strata::status prefill(server<T>& s, strata::sequence_id id, std::span<std::int32_t const> prompt,
                       std::int32_t chunk) noexcept {
  auto const size = static_cast<std::size_t>(chunk < 1 ? 1 : chunk);
  while (prompt.size() > size) {
    auto const part = s.run(feed{id, prompt.first(size), strata::logits::none});
    if (!part.ok()) return part;
    prompt = prompt.subspan(size);
  }
  return s.run(feed{id, prompt, strata::logits::last});
}

}  // namespace lm
