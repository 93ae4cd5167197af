// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The weights of the fixtures' models, by the names that transformers has for them.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "narrow_weights.hpp"
#include "parameters.hpp"

namespace formats {

/// Element i of a tensor, as fixtures/make_fixtures.py has it.
inline float hf_weight(std::string const& name, std::int64_t i) {
  std::int64_t start = 0;
  for (char const c : name) start += 7 * static_cast<unsigned char>(c);
  return static_cast<float>((start + 13 * i) % 255 - 127) / 64;
}

inline std::string hf_name(std::string const& ours) {
  if (ours == "embedding") return "model.embed_tokens.weight";
  if (ours == "final_norm") return "model.norm.weight";
  if (ours == "head") return "lm_head.weight";
  auto const dot = ours.rfind('.');
  auto const layer = "model." + ours.substr(0, dot + 1), own = ours.substr(dot + 1);
  if (own == "attention_norm") return layer + "input_layernorm.weight";
  if (own == "mlp_norm") return layer + "post_attention_layernorm.weight";
  if (own.starts_with("w_")) return layer + "mlp." + own.substr(2) + "_proj.weight";
  if (own.starts_with("w")) return layer + "self_attn." + own.substr(1) + "_proj.weight";
  return layer + "self_attn." + own + ".weight";  // q_norm, k_norm
}

inline void fill_as_hf(lm::parameters<float>& weights) {
  for (auto const& entry : weights.table().entries) {
    auto const to = weights.tensor(entry);
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = hf_weight(hf_name(entry.name), static_cast<std::int64_t>(i));
  }
}

inline void check_as_hf(lm::parameters<float> const& weights) {
  for (auto const& entry : weights.table().entries) {
    CAPTURE(entry.name);
    auto const values = weights.tensor(entry);
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      wrong += values[i] != hf_weight(hf_name(entry.name), static_cast<std::int64_t>(i));
    CHECK(wrong == 0);
  }
}

/// The same rounded to bf16, which holds all of them exactly.
inline void check_as_hf(lm::narrow_weights& weights) {
  auto const& entries = weights.table().entries;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    CAPTURE(entries[i].name);
    bool const gain = lm::narrow_weights::is_gain(entries[i]);
    std::int64_t wrong = 0;
    for (std::int64_t j = 0; j < entries[i].size(); ++j) {
      auto const at = static_cast<std::size_t>(j);
      auto const value = gain ? weights.gain(i)[at] : strata::to_float(weights.matrix(i)[at]);
      wrong += value != hf_weight(hf_name(entries[i].name), j);
    }
    CHECK(wrong == 0);
  }
}

/// The shape of the fixtures' models, as far as they agree.
inline lm::model_config fixture_shape() {
  lm::model_config c;
  c.layers = 2;
  c.dim = 8;
  c.q_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 4;
  c.mlp = 12;
  c.vocab = 16;
  c.context = 32;
  return c;
}
inline lm::model_config llama_shape() {
  auto c = fixture_shape();
  c.rope_theta = 5e5;
  return c;
}
inline lm::model_config mistral_shape() {
  auto c = fixture_shape();
  c.head_dim = 2;
  c.window = 5;
  c.tied = false;
  return c;
}
inline lm::model_config qwen3_shape() {
  auto c = fixture_shape();
  c.rope_theta = 1e6;
  c.norm_epsilon = 1e-6;
  c.qk_norm = true;
  c.tied = false;
  return c;
}

}  // namespace formats
