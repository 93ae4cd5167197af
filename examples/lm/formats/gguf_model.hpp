// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Models in GGUF files: of architectures llama (Mistral is one, too) and qwen3.
#pragma once

#include "../config.hpp"
#include "../narrow_weights.hpp"
#include "../parameters.hpp"
#include "gguf.hpp"

namespace lm {

/// What the metadata and the tensors' shapes describe. Throws `failure` with the key and its value
/// where the model of this program does not compute that.
model_config gguf_config(gguf_file const& file);

/// All weights, as floats.
parameters<float> load_gguf(gguf_file const& file);
/// The same, matrices rounded to bf16, without all of them in float at any time.
narrow_weights load_narrow_gguf(gguf_file const& file);

}  // namespace lm
