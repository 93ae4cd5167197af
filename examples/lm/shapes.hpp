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
};

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
  return c;
}

}  // namespace detail

/// The shapes that --shape knows. `demo` is the model that `strata-lm demo` trains.
inline std::array<named_shape, 6> const& shapes() {
  using detail::config_of;
  static std::array<named_shape, 6> const all = {{
      {"qwen3-8b", config_of({36, 4096, 32, 8, 128, 12288, 151936, 40960, 1e6, 1e-6, true, false})},
      {"qwen3-1.7b", config_of({28, 2048, 16, 8, 128, 6144, 151936, 40960, 1e6, 1e-6, true, true})},
      {"qwen3-0.6b", config_of({28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6, 1e-6, true, true})},
      {"llama-3.1-8b",
       config_of({32, 4096, 32, 8, 128, 14336, 128256, 131072, 5e5, 1e-5, false, false})},
      {"mistral-7b",
       config_of({32, 4096, 32, 8, 128, 14336, 32768, 32768, 1e6, 1e-5, false, false})},
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
