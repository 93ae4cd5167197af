// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Writes models of several shapes to a folder: read_models.py reads them.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <string>
#include <utility>

#include "failure.hpp"
#include "formats/hugging_face.hpp"
#include "lm_formats/hf_weights.hpp"

int main(int count, char** arguments) {
  if (count != 2) return 2;
  auto odd = formats::mistral_shape();  // three heads do not divide a width of 8
  odd.window = 0;
  odd.q_heads = 3;
  odd.kv_heads = 3;
  auto sliding = formats::qwen3_shape();
  sliding.window = 3;
  auto linear = formats::llama_shape(), llama3 = linear;
  linear.rope_scaling = {lm::rope_scaling_kind::linear, 4};
  llama3.rope_scaling = {lm::rope_scaling_kind::llama3, 8, 1, 4, 16};
  std::pair<char const*, lm::model_config> const shapes[] = {{"llama", formats::llama_shape()},
                                                             {"mistral", formats::mistral_shape()},
                                                             {"qwen3", formats::qwen3_shape()},
                                                             {"odd", odd},
                                                             {"sliding", sliding},
                                                             {"linear", linear},
                                                             {"llama3", llama3}};
  try {
    for (auto const& [name, shape] : shapes) {
      lm::parameters<float> weights(shape);
      formats::fill_as_hf(weights);
      auto const path = std::string(arguments[1]) + "/" + name;
      lm::routing_recipe const recipe = {{{"routing", "rcla:0.5"}}, {"full", "every:4"}};
      lm::save_hugging_face(path, weights, recipe);
      lm::save_hugging_face(path + "-bf16", weights, recipe, lm::weight_type::bf16);
    }
  } catch (lm::failure const& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
