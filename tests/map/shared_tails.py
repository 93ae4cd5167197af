#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Whose K and V the layers of transformers' Gemma models read, by looking while they run.

    pip install torch transformers
    tests/map/shared_tails.py > tests/map/shared_tails.hpp

The models have all the layers of the real ones, and next to no width. An attention function of our
own sees which tensors a layer is given; the first layer that was given them is its source.
"""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
import transformers
from transformers import (Gemma3nForCausalLM, Gemma3nTextConfig, Gemma4ForCausalLM,
                          Gemma4TextConfig)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

WIDTH = dict(vocab_size=32, vocab_size_per_layer_input=32, hidden_size=8, num_attention_heads=2,
             num_key_value_heads=1, head_dim=4, hidden_size_per_layer_input=4, sliding_window=512)
GEMMA3N = WIDTH | dict(laurel_rank=2)
GEMMA4 = WIDTH | dict(intermediate_size=8, global_head_dim=8)


def types(pattern, layers):
    """s for a layer with a window, f for a full one; repeated."""
    names = {"s": "sliding_attention", "f": "full_attention"}
    return [names[pattern[l % len(pattern)]] for l in range(layers)]


def gemma3n(layers=35, **options):
    return Gemma3nForCausalLM(Gemma3nTextConfig(
        **GEMMA3N, num_hidden_layers=layers, intermediate_size=[8] * layers,
        activation_sparsity_pattern=[0.0] * layers, **options))


def gemma4(layers, **options):
    return Gemma4ForCausalLM(Gemma4TextConfig(**GEMMA4, num_hidden_layers=layers, **options))


# What is not said is the default of transformers' configuration.
MODELS = {
    "Gemma 3n by default": lambda: gemma3n(),
    "Gemma 3n E2B": lambda: gemma3n(30, num_kv_shared_layers=10),
    "Gemma 3n without sharing": lambda: gemma3n(10, num_kv_shared_layers=0),
    "Gemma 4 E2B": lambda: gemma4(35, num_kv_shared_layers=20, layer_types=types("ssssf", 35)),
    "Gemma 4 E4B": lambda: gemma4(42, num_kv_shared_layers=18),
    "made up: full layers before the tail": lambda: gemma3n(
        8, num_kv_shared_layers=3, layer_types=types("sfsffsfs", 8)),
    "made up: a source far back": lambda: gemma4(
        9, num_kv_shared_layers=3, layer_types=types("fsssssssf", 9)),
}

SEEN = []


def observe(module, query, key, value, mask, **kwargs):
    first = next((l for l, k, v in SEEN if k is key and v is value), module.layer_idx)
    SEEN.append((first, key, value))
    return eager_attention_forward(module, query, key, value, mask, **kwargs)


def sources_of(model):
    SEEN.clear()
    model.eval().set_attn_implementation("observe")
    with torch.no_grad():
        model(input_ids=torch.arange(1, 6)[None], use_cache=False)
    return [first for first, _, _ in SEEN]


def row(name, config, sources):
    kinds = "".join(kind[0] for kind in config.layer_types)
    own = config.num_hidden_layers - config.num_kv_shared_layers
    assert sources[:own] == list(range(own)), name
    tail = ", ".join(map(str, sources[own:]))
    return f'    {{"{name}",\n     "{kinds}",\n     {{{tail}}}}},\n'


def main():
    ALL_ATTENTION_FUNCTIONS.register("observe", observe)
    ALL_MASK_ATTENTION_FUNCTIONS.register("observe", eager_mask)
    version = transformers.__version__
    print(f"""// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whose K and V the layers of transformers {version}'s Gemma models read. Written by shared_tails.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct shared_tail {{
  std::string model;
  std::string_view kinds;             ///< s: a layer with a window, f: a full one
  std::vector<std::int32_t> sources;  ///< of the last layers; those before read their own
}};

inline std::vector<shared_tail> const shared_tails = {{""")
    for name, make in MODELS.items():
        model = make()
        sources = sources_of(model)
        assert len(sources) == model.config.num_hidden_layers
        print(row(name, model.config, sources), end="")
    print("};")


if __name__ == "__main__":
    main()
