#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Random adapters of some of the families' models, as Hugging Face's PEFT writes and computes them.

    pip install torch transformers peft safetensors
    tests/lm_families/make_adapters.py [--out tests/lm_families/adapters]

writes a folder for each: adapter_config.json and adapter_model.safetensors, as PEFT writes them, and
expected.safetensors, the logits in float32 of the model with them. The adapters here were written
with peft 0.21.2, transformers 5.24.0 and torch 2.15.0 on a processor.
"""

import argparse
import json
import os
import pathlib
import shutil

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

# Of each: the family, and what LoraConfig is told.
ADAPTERS = {
    "all": ("smollm2", dict(r=2, lora_alpha=5, target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])),
    # Some matrices, one of them in some layers, another scale, a file in float16.
    "some": ("qwen3", dict(r=3, lora_alpha=4, use_rslora=True, target_modules=[
        "self_attn.k_proj", "down_proj", "model.layers.2.self_attn.q_proj"])),
}


def write_adapter(folder, base, options, seed):
    models = pathlib.Path(__file__).parent / "models"
    tokens = json.loads((models / base / "expected.json").read_text())["tokens"][:-1]
    model = transformers.AutoModelForCausalLM.from_pretrained(models / base, dtype=torch.float32)
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    half = options.get("use_rslora", False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if "lora_" in name:
                noise = 0.15 * torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise.half().float() if half else noise)
        logits = adapted(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    shutil.rmtree(folder, ignore_errors=True)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink()  # a card for the hub
    if half:
        weights = load_file(folder / "adapter_model.safetensors")
        save_file({n: t.half() for n, t in weights.items()}, folder / "adapter_model.safetensors",
                  metadata={"format": "pt"})
    text = json.loads((folder / "adapter_config.json").read_text())
    text["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(text, indent=2) + "\n")
    save_file({"logits": logits.contiguous()}, folder / "expected.safetensors")
    print(f"{folder.name}: moves the logits by {(logits - alone).abs().max().item():.2f}")


def main():
    parser = argparse.ArgumentParser()
    here = pathlib.Path(__file__).parent
    parser.add_argument("--out", type=pathlib.Path, default=here / "adapters")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for seed, (name, (base, options)) in enumerate(ADAPTERS.items()):
        write_adapter(out / name, base, options, seed)


if __name__ == "__main__":
    main()
