// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Public models by their shape: what bench and plan need, and no weights. From the models'
// published config.json; `context` is the longest they were made for.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "config.hpp"
#include "failure.hpp"

namespace lm {

struct named_shape {
  char const* name;
  model_config config;
};

namespace detail {

struct public_shape {
  std::int32_t layers, dim, q_heads, kv_heads, head_dim, mlp, vocab, context;
  double rope_theta, norm_epsilon;
  bool qk_norm, tied;
  lm::rope_scaling scaling = {};
};

/// Llama 3.1's and 3.2's: from 8192 tokens to 131072.
inline rope_scaling llama3_scaling(double factor) {
  return {rope_scaling_kind::llama3, factor, 1, 4, 8192};
}

inline model_config config_of(public_shape const& s) {
  model_config c;
  c.layers = s.layers;
  c.dim = s.dim;
  c.q_heads = s.q_heads;
  c.kv_heads = s.kv_heads;
  c.head_dim = s.head_dim;
  c.mlp = s.mlp;
  c.vocab = s.vocab;
  c.context = s.context;
  c.rope_theta = s.rope_theta;
  c.norm_epsilon = s.norm_epsilon;
  c.qk_norm = s.qk_norm;
  c.tied = s.tied;
  c.rope_scaling = s.scaling;
  return c;
}

}  // namespace detail

/// The shapes that --shape knows. `demo` is the model that `strata-lm demo` trains.
inline std::array<named_shape, 10> const& shapes() {
  using detail::config_of, detail::llama3_scaling;
  static std::array<named_shape, 10> const all = {{
      {"qwen3-8b", config_of({36, 4096, 32, 8, 128, 12288, 151936, 40960, 1e6, 1e-6, true, false})},
      {"qwen3-4b", config_of({36, 2560, 32, 8, 128, 9728, 151936, 40960, 1e6, 1e-6, true, true})},
      {"qwen3-1.7b", config_of({28, 2048, 16, 8, 128, 6144, 151936, 40960, 1e6, 1e-6, true, true})},
      {"qwen3-0.6b", config_of({28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6, 1e-6, true, true})},
      {"llama-3.1-8b", config_of({32, 4096, 32, 8, 128, 14336, 128256, 131072, 5e5, 1e-5, false,
                                  false, llama3_scaling(8)})},
      {"llama-3.2-1b", config_of({16, 2048, 32, 8, 64, 8192, 128256, 131072, 5e5, 1e-5, false, true,
                                  llama3_scaling(32)})},
      {"llama-2-7b",
       config_of({32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e4, 1e-5, false, false})},
      {"mistral-7b",
       config_of({32, 4096, 32, 8, 128, 14336, 32768, 32768, 1e6, 1e-5, false, false})},
      {"smollm2-135m", config_of({30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5, 1e-5, false, true})},
      {"demo", model_config{}},
  }};
  return all;
}

inline std::string shape_names() {
  std::string names;
  for (auto const& shape : shapes()) names += (names.empty() ? "" : ", ") + std::string(shape.name);
  return names;
}

inline model_config find_shape(std::string const& name) {
  for (auto const& shape : shapes())
    if (name == shape.name) return shape.config;
  throw failure("--shape: there is no " + name + "; there are " + shape_names(),
                exit_code::wrong_use);
}

}  // namespace lm
