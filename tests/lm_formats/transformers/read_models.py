#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# transformers and safetensors read what write_models wrote: every weight, the fields that decide how
# it is computed with, and the recipe beside it. Exit code 77 where they are not installed.
#
#     read_models.py <write_models>
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import safetensors
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def weight(name, shape):
    """As hf_weights.hpp has it."""
    start = 7 * sum(name.encode())
    count = 1
    for extent in shape:
        count *= extent
    return torch.tensor([((start + 13 * i) % 255 - 127) / 64 for i in range(count)]).reshape(shape)


expected = {
    "llama": ("LlamaForCausalLM", 5e5, None, True),
    "mistral": ("MistralForCausalLM", 1e4, 5, False),
    "qwen3": ("Qwen3ForCausalLM", 1e6, None, False),
    "odd": ("MistralForCausalLM", 1e4, None, False),
    "sliding": ("Qwen3ForCausalLM", 1e6, 3, False),
    "linear": ("LlamaForCausalLM", 5e5, None, True),
    "llama3": ("LlamaForCausalLM", 5e5, None, True),
}
scalings = {
    "linear": {"rope_type": "linear", "factor": 4},
    "llama3": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
               "original_max_position_embeddings": 16},
}


def check(folder, dtype):
    shape = folder.name.removesuffix("-bf16")
    architecture, theta, window, tied = expected[shape]
    model, news = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True)
    assert type(model).__name__ == architecture, type(model)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not news[what], (what, news[what])
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    assert rope.get("rope_theta", getattr(config, "rope_theta", None)) == theta, config
    scaling = rope or getattr(config, "rope_scaling", None) or {}
    for name, value in scalings.get(shape, {"rope_type": "default"}).items():
        assert scaling.get(name, "default") == value, (name, config)
    assert getattr(config, "sliding_window", None) == window, config
    if window and getattr(config, "layer_types", None):
        assert set(config.layer_types) == {"sliding_attention"}, config
    assert config.tie_word_embeddings == tied, config
    assert config.strata["strategies"] == ["full", "every:4"], config
    seen = 0
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == dtype, (name, tensor.dtype)
        source = "model.embed_tokens.weight" if tied and name == "lm_head.weight" else name
        assert torch.equal(tensor.float(), weight(source, tensor.shape)), name
        seen += 1
    assert seen > 20, seen
    logits = model(torch.tensor([[1, 2, 3, 4, 5, 6]])).logits
    assert logits.shape == (1, 6, 16) and torch.isfinite(logits).all()
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["strata"])
    assert recipe == {"training": {"routing": "rcla:0.5"}, "strategies": ["full", "every:4"]}, recipe


with tempfile.TemporaryDirectory() as scratch:
    subprocess.run([sys.argv[1], scratch], check=True)
    folders = sorted(pathlib.Path(scratch).iterdir())
    assert len(folders) == 2 * len(expected), folders
    for one in folders:
        check(one, torch.bfloat16 if one.name.endswith("-bf16") else torch.float32)
    print(f"{len(folders)} folders read by transformers {transformers.__version__}")
