// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The shape of the reference model: a Llama-like decoder (GQA, RoPE, RMSNorm, SwiGLU) with Qwen3's
// QK-norm, Mistral's sliding window, Llama 3's RoPE scaling and free output embeddings as options.
// Projections have no bias.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <strata/geometry.hpp>
#include <strata/ids.hpp>

#include "rope_scaling.hpp"

namespace lm {

/// Sizes of a model. The defaults are the demo's: 1.5 million parameters.
struct model_config {
  std::int32_t layers = 8;
  std::int32_t dim = 128;  ///< width of the residual stream
  std::int32_t q_heads = 4;
  std::int32_t kv_heads = 2;   ///< divides q_heads
  std::int32_t head_dim = 32;  ///< even; need not be dim / q_heads
  std::int32_t mlp = 352;      ///< width between w_gate, w_up and w_down
  std::int32_t vocab = 256;    ///< bytes
  std::int32_t context = 128;  ///< tokens of a training window; serving may go beyond
  double rope_theta = 10000;
  lm::rope_scaling rope_scaling = {};
  double norm_epsilon = 1e-5;
  bool qk_norm = false;     ///< RMSNorm over head_dim of each query and key head, before RoPE
  std::int32_t window = 0;  ///< keys that a query sees, itself included; 0: all
  bool tied = true;         ///< the output projection is the embedding

  std::int32_t q_dim() const noexcept { return q_heads * head_dim; }
  std::int32_t kv_dim() const noexcept { return kv_heads * head_dim; }

  /// Radians by which RoPE turns pair i of a head, 0 <= i < head_dim / 2, from token to token.
  double rope_frequency(std::int32_t i) const noexcept {
    return rope_scaling.scaled(std::pow(rope_theta, -2.0 * i / head_dim));
  }

  /// All layers are of one kind; K is captured after K-norm and RoPE.
  strata::layer_kind kind() const noexcept {
    strata::layer_kind kind;
    kind.kv.kv_heads = kv_heads;
    kind.kv.k_dim = head_dim;
    kind.kv.v_dim = head_dim;
    kind.kv.rope.theta = rope_theta;
    kind.kv.rope.scaling = rope_scaling.factor;
    kind.kv.rope.frequencies = rope_scaling.identity();
    if (window > 0) kind.window = window;
    return kind;
  }
  strata::kv_classes classes() const noexcept {
    return strata::kv_classes::uniform(layers, kind());
  }

  std::int64_t parameters_per_layer() const noexcept {
    auto const d = std::int64_t{dim};
    return 2 * d * q_dim() + 2 * d * kv_dim() + 3 * d * mlp + 2 * d + (qk_norm ? 2 * head_dim : 0);
  }
  std::int64_t parameter_count() const noexcept {
    return layers * parameters_per_layer() + (tied ? 1 : 2) * std::int64_t{vocab} * dim + dim;
  }

  /// Empty, or what is wrong: the argument as the command line spells it, its value and its bound.
  std::string check() const;

  friend bool operator==(model_config const&, model_config const&) = default;
};

namespace detail {

/// "" if low <= value <= high, else a sentence.
inline std::string check_range(char const* argument, std::int64_t value, std::int64_t low,
                               std::int64_t high) {
  if (value >= low && value <= high) return "";
  return std::string(argument) + " is " + std::to_string(value) + "; it must lie between " +
         std::to_string(low) + " and " + std::to_string(high);
}

}  // namespace detail

inline std::string model_config::check() const {
  constexpr std::int32_t widest = 1 << 18;  // products of two such widths fit 64 bits with ease
  struct bound {
    char const* argument;
    std::int64_t value, low, high;
  };
  bound const bounds[] = {{"--layers", layers, 1, strata::max_layers},
                          {"--dim", dim, 1, widest},
                          {"--q-heads", q_heads, 1, 4096},
                          {"--kv-heads", kv_heads, 1, q_heads},
                          {"--head-dim", head_dim, 2, 1024},
                          {"--mlp", mlp, 1, widest},
                          {"--vocab", vocab, 2, 1 << 20},
                          {"--context", context, 1, 1 << 24},
                          {"--window", window, 0, 1 << 24}};
  for (auto const& b : bounds)
    if (auto s = detail::check_range(b.argument, b.value, b.low, b.high); !s.empty()) return s;
  if (q_heads % kv_heads != 0)
    return "--kv-heads is " + std::to_string(kv_heads) + "; it must divide --q-heads, " +
           std::to_string(q_heads);
  if (head_dim % 2 != 0)
    return "--head-dim is " + std::to_string(head_dim) + "; RoPE turns pairs, so it must be even";
  if (!(rope_theta > 1) || !std::isfinite(rope_theta))
    return "--rope-theta is " + std::to_string(rope_theta) + "; it must be above 1";
  if (!(norm_epsilon > 0) || !(norm_epsilon < 1))
    return "--norm-epsilon is " + std::to_string(norm_epsilon) + "; it must lie between 0 and 1";
  return rope_scaling.check();
}

}  // namespace lm
