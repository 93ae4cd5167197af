// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "named_weights.hpp"

namespace lm::detail {

/// Of all three architectures.
inline tensor_names const& hugging_face_names() {
  static tensor_names const names = {"model.layers.",
                                     {{"embedding", "model.embed_tokens.weight"},
                                      {"attention_norm", "input_layernorm.weight"},
                                      {"wq", "self_attn.q_proj.weight"},
                                      {"wk", "self_attn.k_proj.weight"},
                                      {"wv", "self_attn.v_proj.weight"},
                                      {"q_norm", "self_attn.q_norm.weight"},
                                      {"k_norm", "self_attn.k_norm.weight"},
                                      {"wo", "self_attn.o_proj.weight"},
                                      {"mlp_norm", "post_attention_layernorm.weight"},
                                      {"w_gate", "mlp.gate_proj.weight"},
                                      {"w_up", "mlp.up_proj.weight"},
                                      {"w_down", "mlp.down_proj.weight"},
                                      {"final_norm", "model.norm.weight"},
                                      {"head", "lm_head.weight"}}};
  return names;
}

}  // namespace lm::detail
