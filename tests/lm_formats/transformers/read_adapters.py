#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# PEFT loads adapters that strata-lm trained over their model, and transformers the model that it
# merged: both compute the same logits. Exit code 77 where they are not installed.
#
#     read_adapters.py <strata-lm>
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import peft
    import safetensors
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

BOUND = 2e-4  # both sides round in float32; logits are of the order of 1


def main(program, scratch):
    def run(*arguments):
        subprocess.run([program, *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)

    text = scratch / "text"
    text.write_text("".join(f"and the {i * i % 97}th day was as the day before it\n"
                            for i in range(400)))
    common = ["--text", text, "--batch", 4, "--lr", 0.02, "--threads", 1, "--routing", "rcla:0.5"]
    run("train", *common, "--steps", 20, "--out", scratch / "base.strata", "--layers", 3, "--dim", 24,
        "--q-heads", 4, "--kv-heads", 2, "--head-dim", 6, "--mlp", 40, "--context", 32, "--qk-norm")
    base, merged, adapters = scratch / "base", scratch / "merged", scratch / "adapters"
    run("export", "--model", scratch / "base.strata", "--out", base, "--weights", "f32")
    run("train", *common, "--init", base, "--lora", 3, "--steps", 20, "--out",
        scratch / "merged.strata", "--adapters-out", adapters)
    run("export", "--model", scratch / "merged.strata", "--out", merged, "--weights", "f32")

    tokens = torch.tensor([list(text.read_bytes()[:32])])
    with torch.no_grad():
        load = transformers.AutoModelForCausalLM.from_pretrained
        alone = load(base, dtype=torch.float32)(tokens).logits
        expected = load(merged, dtype=torch.float32)(tokens).logits
        # By what the folder says of its base.
        adapted = peft.AutoPeftModelForCausalLM.from_pretrained(adapters, dtype=torch.float32)
        logits = adapted(tokens).logits
    moved = (expected - alone).abs().max().item()
    wrong = (logits - expected).abs().max().item()
    assert moved > 0.1, moved
    assert wrong < BOUND, wrong
    with safetensors.safe_open(adapters / "adapter_model.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["strata"])
        known = set(file.keys())
    assert recipe["training"]["arguments"]["routing"] == "rcla:0.5", recipe
    assert known == set(peft.get_peft_model_state_dict(adapted)), known
    print(f"adapters move the logits by {moved:.3f}; peft {peft.__version__} and transformers "
          f"{transformers.__version__} differ by {wrong:.1e}")


with tempfile.TemporaryDirectory() as folder:
    main(sys.argv[1], pathlib.Path(folder))
