#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Small random models of each family, as Hugging Face's transformers computes them.

    pip install torch transformers safetensors gguf
    tests/lm_families/make_fixtures.py [--out tests/lm_families/models]

writes a folder for each: config.json and model.safetensors, as transformers reads them;
expected.json, the tokens and the maps; expected.safetensors, the logits in float32 under each map
and, of some, the gradients of the mean cross-entropy of each token's successor; of some, model.gguf
with the same weights, as llama.cpp's converter would write them. The models here were written with
transformers 5.24.0, torch 2.15.0 and gguf 0.19.0 on a processor.

A map is put under transformers' models by its own door, an attention function: it gets K and V as
they would be cached (after K-norm and RoPE), and attends to those of the layer's source instead.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import gguf
import numpy
import torch
import transformers
from safetensors.torch import save_file
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

sys.path.append(str(pathlib.Path(__file__).parents[1] / "support"))
import gguf_models

LENGTH = 48  # tokens

LLAMA3 = {"rope_type": "llama3", "rope_theta": 1000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}

# What a family does not say is COMMON's or the default of transformers. `weights`: the type in the
# file. `older`: config.json in the form of transformers 4, which most models on the hub have, with
# this name for the type of scaling.
FAMILIES = {
    # Llama 2: as many KV heads as query heads, an output projection of its own.
    "llama2": dict(kind="Llama", weights=torch.float16, num_key_value_heads=4,
                   rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
    "llama-linear": dict(kind="Llama", weights=torch.float16, hidden_size=24, num_hidden_layers=4,
                         rope_parameters={"rope_type": "linear", "factor": 4.0,
                                          "rope_theta": 100.0}, older="type", gguf=True),
    # Llama 3.2: scaled, tied. Its context ends before the text does.
    "llama3": dict(kind="Llama", weights=torch.bfloat16, tie_word_embeddings=True,
                   max_position_embeddings=32, rope_parameters=LLAMA3, gradients=True,
                   older="rope_type"),
    # The same with the numbers of the real ones, whose files llama.cpp's converter leaves out.
    "llama3-8192": dict(kind="Llama", weights=torch.float16, hidden_size=16, head_dim=8,
                        num_hidden_layers=4, rope_parameters=LLAMA3 | {
                            "rope_theta": 1e6, "original_max_position_embeddings": 8192},
                        gguf=True),
    # SmolLM2: nine query heads on three KV heads.
    "smollm2": dict(kind="Llama", weights=torch.bfloat16, tie_word_embeddings=True, hidden_size=36,
                    num_attention_heads=9, num_key_value_heads=3, head_dim=4, num_hidden_layers=6,
                    rope_parameters={"rope_type": "default", "rope_theta": 100000.0}),
    "mistral": dict(kind="Mistral", weights=torch.bfloat16, sliding_window=16, older="",
                    rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
    # Its heads are wider than hidden_size / num_attention_heads.
    "qwen3": dict(kind="Qwen3", weights=torch.bfloat16, head_dim=16, tie_word_embeddings=True,
                  rms_norm_eps=1e-3, gradients=True,
                  rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
    "qwen3-untied": dict(kind="Qwen3", weights=torch.float16, head_dim=6,
                         num_key_value_heads=1,
                         rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
}
COMMON = dict(vocab_size=42, hidden_size=32, intermediate_size=44, num_hidden_layers=5,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
              tie_word_embeddings=False, attention_bias=False, rms_norm_eps=1e-5,
              bos_token_id=1, eos_token_id=2)
STRATEGIES = {
    "full": lambda layers: list(range(layers)),
    "every:2": lambda layers: [l - l % 2 for l in range(layers)],
    "every:3": lambda layers: [l - l % 3 for l in range(layers)],
    "leaders:0,1,3": lambda layers: [0, 1, 1] + [3] * (layers - 3),
}
GRADIENTS = ["model.embed_tokens.weight", "model.norm.weight",
             "model.layers.0.self_attn.k_proj.weight", "model.layers.1.self_attn.k_proj.weight",
             "model.layers.2.self_attn.v_proj.weight", "model.layers.3.self_attn.q_proj.weight",
             "model.layers.2.self_attn.o_proj.weight", "model.layers.3.input_layernorm.weight",
             "model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.k_norm.weight",
             "model.layers.3.self_attn.q_norm.weight"]


class Sharing:
    """Attention in which layer l reads K and V of layer sources[l]."""

    def __init__(self):
        self.sources = []
        self.kept = {}

    def __call__(self, module, query, key, value, mask, **kwargs):
        layer = module.layer_idx
        if self.sources[layer] == layer:
            self.kept[layer] = key, value
        key, value = self.kept[self.sources[layer]]
        return eager_attention_forward(module, query, key, value, mask, **kwargs)


SHARING = Sharing()
ALL_ATTENTION_FUNCTIONS.register("sharing", SHARING)
ALL_MASK_ATTENTION_FUNCTIONS.register("sharing", eager_mask)


def make_model(name, options, generator):
    """A model whose norms, softmax and SwiGLU are curved where it is looked at."""
    options = COMMON | options
    kind, weights = options.pop("kind"), options.pop("weights")
    for ours in "gradients", "older", "gguf":
        options.pop(ours, None)
    if kind != "Llama" and kind != "Qwen3":
        options.pop("attention_bias")
    config = getattr(transformers, kind + "Config")(**options)
    config.architectures = [kind + "ForCausalLM"]
    model = getattr(transformers, kind + "ForCausalLM")(config).float().eval()
    model.set_attn_implementation("sharing")
    with torch.no_grad():
        for tensor_name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            scale = 1.1 * tensor.shape[-1] ** -0.5
            values = 1 + 0.3 * noise if "norm" in tensor_name else scale * noise
            if "embed_tokens" in tensor_name:
                values = 0.4 * noise
            tensor.copy_(values.to(weights).float())
    return model, weights


def logits_of(model, tokens, sources):
    SHARING.sources, SHARING.kept = sources, {}
    return model(input_ids=tokens[None], use_cache=False).logits[0]


def gradients_of(model, tokens, targets, sources):
    """Of the mean cross-entropy; zeros where nothing reaches a tensor."""
    model.zero_grad()
    torch.nn.functional.cross_entropy(logits_of(model, tokens, sources), targets).backward()
    tensors = dict(model.named_parameters())
    return {name: (torch.zeros_like(tensors[name]) if tensors[name].grad is None
                   else tensors[name].grad.clone())
            for name in GRADIENTS if name in tensors}


def config_text(config, older):
    """config.json; `older` as FAMILIES says, or None."""
    if older is None:
        return config.to_json_string()
    members = json.loads(config.to_json_string())
    rope = members.pop("rope_parameters")
    members["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    members["rope_scaling"] = None if kind == "default" else {older: kind} | rope
    if members["head_dim"] == config.hidden_size // config.num_attention_heads:
        del members["head_dim"]
    members["torch_dtype"] = members.pop("dtype")
    members["transformers_version"] = "4.43.0"
    return json.dumps(members, indent=2, sort_keys=True) + "\n"


def rope_divisors(config):
    """What llama.cpp's converter makes of llama3's scaling: a number for each frequency."""
    rope = config.rope_parameters
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    divisors = []
    for i in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / config.head_dim)
        if wavelength < context / high:
            divisors.append(1)
        elif wavelength > context / low:
            divisors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return numpy.array(divisors, dtype=numpy.float32)


def write_gguf(path, config, tensors):
    writer = gguf_models.begin(path, "llama", config)
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_divisors(config))
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    gguf_models.add_weights(writer, "llama", config, weights)
    gguf_models.finish(writer)


def check_folder(folder, tokens, logits):
    """What was written is what was computed."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        again = loaded(input_ids=tokens[None], use_cache=False).logits[0]
    assert (again - logits).abs().max() < 1e-4, folder


def write_family(folder, name, options, seed):
    generator = torch.Generator().manual_seed(seed)
    model, weights = make_model(name, dict(options), generator)
    config = model.config
    tokens = torch.randint(config.vocab_size, (LENGTH + 1,), generator=generator)
    maps = {s: sources(config.num_hidden_layers) for s, sources in STRATEGIES.items()}
    expected = {}
    for strategy, sources in maps.items():
        with torch.no_grad():
            logits = logits_of(model, tokens[:-1], sources)
        expected["logits." + strategy] = logits.contiguous()
        if options.get("gradients") and strategy in ("full", "every:2"):
            for tensor, gradient in gradients_of(model, tokens[:-1], tokens[1:], sources).items():
                expected[f"gradient.{strategy}.{tensor}"] = gradient.contiguous()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stored = {n: p.detach().to(weights).contiguous() for n, p in model.named_parameters()}
    config.dtype = str(weights).removeprefix("torch.")
    (folder / "config.json").write_text(config_text(config, options.get("older")))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, folder / "expected.safetensors")
    if options.get("gguf"):
        write_gguf(folder / "model.gguf", config, stored)
    facts = {"tokens": tokens.tolist(), "maps": maps, "transformers": transformers.__version__}
    (folder / "expected.json").write_text(json.dumps(facts) + "\n")
    check_folder(folder, tokens[:-1], expected["logits.full"])
    size = sum(f.stat().st_size for f in folder.iterdir())
    spread = expected["logits.full"].std().item()
    moved = [(expected["logits." + s] - expected["logits.full"]).abs().max().item() for s in maps]
    print(f"{name}: {size / 1024:.0f} KB, logits deviate by {spread:.2f}, maps move them by",
          " ".join(f"{m:.2f}" for m in moved))


def main():
    parser = argparse.ArgumentParser()
    here = pathlib.Path(__file__).parent
    parser.add_argument("--out", type=pathlib.Path, default=here / "models")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for seed, (name, options) in enumerate(FAMILIES.items()):
        write_family(out / name, name, options, seed)


if __name__ == "__main__":
    main()
