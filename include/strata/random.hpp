// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Counter-based random numbers: a draw is a pure function of its key, so every rank, thread and
// recomputation sees the same one without communication, and training can resume from a step
// number.
//
// The draw, to the bit, so that any other language can reproduce a route:
//
//   philox(counter[4], key[2])  Philox 4x32-10 of Salmon et al., "Parallel random numbers: as easy
//                               as 1, 2, 3" (SC 2011); output words w[0..3]
//   s = philox({step_low, step_high, micro_batch, sequence}, {seed_low, seed_high})
//   w = philox({layer, purpose, replica, index},             {s[0], s[1]})
//
//   coin(P):  w[0] < floor(P * 2^32), compared as 64-bit integers: P = 1 is always true
//   pick(n):  (w[1] * n) >> 32, in 64-bit arithmetic: 0 .. n-1, biased by less than n / 2^32
//
// A draw for the whole model instead of one layer uses layer = 2^32 - 1.
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/ids.hpp>

STRATA_NAMESPACE_BEGIN

/// Four 32-bit words: a counter, or a block of random output.
struct philox_block {
  std::uint32_t word[4] = {};
  friend constexpr bool operator==(philox_block const&, philox_block const&) noexcept = default;
};

/// Philox 4x32-10. About 20 multiplications.
STRATA_HOST_DEVICE constexpr philox_block philox(philox_block counter, std::uint32_t key_low,
                                                 std::uint32_t key_high) noexcept {
  for (int round = 0; round < 10; ++round) {
    auto const& c = counter.word;
    auto const even = std::uint64_t{0xD2511F53} * c[0];
    auto const odd = std::uint64_t{0xCD9E8D57} * c[2];
    counter = {{static_cast<std::uint32_t>(odd >> 32) ^ c[1] ^ key_low,
                static_cast<std::uint32_t>(odd),
                static_cast<std::uint32_t>(even >> 32) ^ c[3] ^ key_high,
                static_cast<std::uint32_t>(even)}};
    key_low += 0x9E3779B9;   // the golden ratio
    key_high += 0xBB67AE85;  // sqrt(3) - 1
  }
  return counter;
}

/// Which of a run's random streams a draw belongs to. Routes and data order never share one.
enum class draw_purpose : std::uint32_t {
  route = 0,
  data_order = 1,
  weights = 2,
  generation = 3,
  dropout = 4
};

/// Names one draw. Which of its fields vary is the draw scope.
struct draw_key {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;         ///< optimizer step
  std::uint32_t micro_batch = 0;  ///< of the step
  std::uint32_t sequence = 0;     ///< of the micro-batch, for one route per sequence
  std::uint32_t replica = 0;      ///< data-parallel rank, for one route per rank

  friend constexpr bool operator==(draw_key const&, draw_key const&) noexcept = default;
};

/// What shares one route. The default is a micro-batch, the same on all ranks; with several
/// micro-batches an optimizer step then mixes routes.
enum class draw_scope : std::int32_t { step, micro_batch, sequence, replica };

/// The key with every field that the scope does not vary set to 0. `sequence` varies within a
/// micro-batch; `replica` is the micro-batch scope with a route of its own on every rank.
STRATA_HOST_DEVICE constexpr draw_key scoped(draw_key key, draw_scope scope) noexcept {
  if (scope == draw_scope::step) key.micro_batch = 0;
  if (scope != draw_scope::sequence) key.sequence = 0;
  if (scope != draw_scope::replica) key.replica = 0;
  return key;
}

/// The layer of a draw that concerns the whole model.
inline constexpr std::uint32_t whole_model = 0xFFFFFFFF;

/// What all draws of a key share: s, as specified at the top of this file.
STRATA_HOST_DEVICE constexpr philox_block draw_stream(draw_key const& key) noexcept {
  auto const low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  auto const high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  return philox({{low(key.step), high(key.step), key.micro_batch, key.sequence}}, low(key.seed),
                high(key.seed));
}

/// The random words of one draw, as specified at the top of this file.
STRATA_HOST_DEVICE constexpr philox_block draw_words(draw_key const& key, std::uint32_t layer,
                                                     draw_purpose purpose = draw_purpose::route,
                                                     std::uint32_t index = 0) noexcept {
  auto const stream = draw_stream(key);
  return philox({{layer, static_cast<std::uint32_t>(purpose), key.replica, index}}, stream.word[0],
                stream.word[1]);
}

STRATA_HOST_DEVICE constexpr philox_block draw_words(draw_key const& key, layer_id layer) noexcept {
  return draw_words(key, static_cast<std::uint32_t>(layer.index));
}

/// True with the given probability. Below 0 counts as 0, above 1 as 1; NaN is never true.
STRATA_HOST_DEVICE constexpr bool coin(philox_block const& words, double probability) noexcept {
  if (!(probability > 0)) return false;
  if (probability >= 1) return true;
  return words.word[0] < static_cast<std::uint64_t>(probability * 4294967296.0);
}

/// An index below `count`, which is at least 1.
STRATA_HOST_DEVICE constexpr std::int32_t pick(philox_block const& words,
                                               std::int32_t count) noexcept {
  return static_cast<std::int32_t>(
      (std::uint64_t{words.word[1]} * static_cast<std::uint32_t>(count)) >> 32);
}

STRATA_NAMESPACE_END
