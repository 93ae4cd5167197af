#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The loss of a text as Hugging Face's transformers computes it, beside `strata-lm eval`.

    bench/peers/transformers_loss.py --model FILE.gguf --text FILE --max-bytes 24000 \
        [--context 2048] [--stride 1024] [--strata build/all/examples/lm/strata-lm] [--out FILE]

FILE.gguf is dequantised by transformers (Python packages transformers, gguf,
accelerate, torch); all in float32.
Windows are those of `strata-lm eval`: of --context inputs every --stride tokens, and each token but
the first is scored once, in the first window that has it. With --strata the program scores the same
text, and the two are compared.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import gguf
import tokenizers
import torch
import transformers


def windows(count, context, stride):
    """(first input, inputs, first that is scored) of each window over `count` tokens."""
    scored, begin = 0, 0
    while scored < count - 1:
        end = min(begin + context, count - 1)
        yield begin, end - begin, scored - begin
        scored, begin = end, begin + stride


def loss_of(model, tokens, context, stride):
    total, count = 0.0, 0
    with torch.no_grad():
        for begin, inputs, first in windows(len(tokens), context, stride):
            ids = torch.tensor([tokens[begin:begin + inputs]])
            logits = model(ids).logits[0, first:].double()
            targets = torch.tensor(tokens[begin + 1 + first:begin + 1 + inputs])
            total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            count += len(targets)
            print(f"{count} of {len(tokens) - 1} tokens, {total / count:.4f}", file=sys.stderr)
    return total / count, count


def strata_loss(options):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "eval.json")
        subprocess.run([options.strata, "eval", "--model", options.model, "--text", options.text,
                        "--context", str(options.context), "--stride", str(options.stride),
                        "--max-bytes", str(options.max_bytes), "--json", path],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path) as file:
            figures = json.load(file)
    return figures["strategies"][0]["loss"], figures["tokens"]


def tokenizer_of(folder, name):
    """transformers' own, which leaves out that SmolLM's splits digits before all else."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    field = gguf.GGUFReader(os.path.join(folder, name)).get_field("tokenizer.ggml.pre")
    if field is not None and bytes(field.parts[field.data[0]]) == b"smollm":
        steps = tokenizers.pre_tokenizers
        tokenizer.backend_tokenizer.pre_tokenizer = steps.Sequence(
            [steps.Digits(individual_digits=True), steps.ByteLevel(add_prefix_space=False)])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--max-bytes", type=int, default=24000)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--stride", type=int, default=1024)
    parser.add_argument("--strata", help="strata-lm")
    parser.add_argument("--out")
    options = parser.parse_args()
    folder, name = os.path.split(os.path.abspath(options.model))
    tokenizer = tokenizer_of(folder, name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name,
                                                              dtype=torch.float32).eval()
    with open(options.text, "rb") as file:
        text = file.read(options.max_bytes).decode()
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    loss, count = loss_of(model, tokens, options.context, options.stride)
    figures = {"text": os.path.basename(options.text), "bytes": options.max_bytes,
               "context": options.context, "stride": options.stride,
               "transformers": {"loss": loss, "tokens": count,
                                "version": transformers.__version__}}
    if options.strata:
        ours, ours_count = strata_loss(options)
        figures["strata"] = {"loss": ours, "tokens": ours_count}
        figures["difference"] = ours - loss
    print(json.dumps(figures, indent=2))
    if options.out:
        with open(options.out, "w") as file:
            json.dump(figures, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
