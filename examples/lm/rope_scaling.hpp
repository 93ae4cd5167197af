// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How a model that was trained on short texts has its RoPE frequencies stretched for long ones. The
// kinds are those that transformers calls by the same names (`rope_type`).
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>

#include <strata/checksum.hpp>

namespace lm {

enum class rope_scaling_kind : std::int32_t {
  none,
  linear,  ///< all frequencies are divided by `factor`
  llama3   ///< low frequencies are, high ones stay, those between are interpolated
};
inline constexpr rope_scaling_kind rope_scaling_kinds[] = {
    rope_scaling_kind::none, rope_scaling_kind::linear, rope_scaling_kind::llama3};

inline char const* name_of(rope_scaling_kind kind) {
  constexpr char const* names[] = {"none", "linear", "llama3"};
  return names[static_cast<std::size_t>(kind)];
}

/// What a kind does not use stays as it is here, so that equal scalings compare equal.
struct rope_scaling {
  rope_scaling_kind kind = rope_scaling_kind::none;
  double factor = 1;
  /// Turns within the original context: a frequency that does at most `low` is divided, one that
  /// does at least `high` stays.
  double low = 1, high = 4;
  std::int32_t original_context = 0;  ///< tokens that the frequencies were made for

  /// The frequency of a pair, in radians per token.
  double scaled(double frequency) const noexcept {
    if (kind == rope_scaling_kind::none) return frequency;
    if (kind == rope_scaling_kind::linear) return frequency / factor;
    auto const turns = original_context * frequency / (2 * std::numbers::pi);
    if (turns >= high) return frequency;
    if (turns <= low) return frequency / factor;
    auto const kept = (turns - low) / (high - low);
    return kept * frequency + (1 - kept) * frequency / factor;
  }

  /// For strata::rope_parameters: what tells this scaling's frequencies from those of others with
  /// the same factor.
  std::uint64_t identity() const noexcept {
    if (kind != rope_scaling_kind::llama3) return 0;
    double const ramp[] = {low, high};
    auto const crc = strata::crc32c(std::as_bytes(std::span(ramp)));
    return (std::uint64_t{crc} << 32) | static_cast<std::uint32_t>(original_context);
  }

  /// Empty, or what is wrong.
  std::string check() const {
    auto const refuse = [](char const* what, auto value, char const* bound) {
      return std::string("RoPE scaling: ") + what + " is " + std::to_string(value) +
             "; it must be " + bound;
    };
    if (kind == rope_scaling_kind::none)
      return *this == rope_scaling{} ? "" : "RoPE scaling: has numbers, but no kind";
    if (!(factor >= 1 && factor < 1e6)) return refuse("factor", factor, "from 1 to a million");
    if (kind == rope_scaling_kind::linear) return "";
    if (!(low > 0 && low < 1e6)) return refuse("low_freq_factor", low, "above 0");
    if (!(high > low && high < 1e6))
      return refuse("high_freq_factor", high, "above low_freq_factor");
    if (original_context < 1 || original_context > 1 << 24)
      return refuse("original_max_position_embeddings", original_context, "from 1 to 16777216");
    return "";
  }

  friend bool operator==(rope_scaling const&, rope_scaling const&) = default;
};

}  // namespace lm
