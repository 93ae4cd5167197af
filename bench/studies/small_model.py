#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes an untrained Llama of a few million parameters with a tokenizer of its own, for studies of
fine-tuning that a processor can do with several seeds.

    bench/studies/small_model.py --text text.txt --out small

with a Python that has tokenizers, safetensors and numpy. The folder is one of Hugging Face's:
config.json, tokenizer.json (byte-level BPE, as GPT-2's, learnt from --text) and model.safetensors
(normal weights of deviation 0.02, those that write into the residual stream divided by
sqrt(2 layers), as GPT-2's; gains 1), which `strata-lm train --init small` goes on from. The same
arguments give the same bytes.

From there to what fine_tuning.py starts from, in an hour and a half of two cores: ten million tokens
of text, and 6.5 million of one whose lines come twice, from which it learns to look up:

    bench/studies/pretraining.py --prepare-text text.txt
    bench/studies/repeated_text.py --text text.txt --out repeated.txt
    train() { strata-lm train --routing self --context 256 --batch 32 --lr 3e-3 --beta2 0.95 \\
        --clip 1 --warmup 0.03 --hold-out 50 "$@"; }
    train --text text.txt --init small --steps 1200 --out read.strata
    train --text repeated.txt --init read.strata --steps 800 --out base.strata
    bench/studies/question_sets.py --out questions --most-bytes 540 --train 5000
    bench/studies/fine_tuning.py --name small --model base.strata --layers 8 --seeds 1 2 3 \\
        --questions questions --context 288 --steps 150 --lr 2e-3 --answers-only --runs runs.jsonl
"""
import argparse
import json
import math
import os

import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|endoftext|>"
SAMPLE = 8_000_000  # bytes of the text are enough for some thousand tokens


def lines(path):
    with open(path, "rb") as file:
        yield from file.read(SAMPLE).decode(errors="replace").splitlines(keepends=True)


def learn_tokenizer(options):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines(options.text), trainers.BpeTrainer(
        vocab_size=options.vocabulary, special_tokens=[EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def config(options, vocabulary):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary,
            "hidden_size": options.dim, "intermediate_size": options.mlp,
            "num_hidden_layers": options.layers, "num_attention_heads": options.q_heads,
            "num_key_value_heads": options.kv_heads, "head_dim": options.head_dim,
            "max_position_embeddings": options.context, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True,
            "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 0,
            "torch_dtype": "float32"}


def weights(options, vocabulary):
    """name -> [out, in], or [dim] for gains."""
    numbers = numpy.random.default_rng(options.seed)
    dim, q, kv = options.dim, options.q_heads * options.head_dim, options.kv_heads * options.head_dim

    def normal(rows, columns, deviation=0.02):
        return (numbers.standard_normal((rows, columns)) * deviation).astype(numpy.float32)
    gains = numpy.ones(dim, numpy.float32)
    into_residual = 0.02 / math.sqrt(2 * options.layers)
    out = {"model.embed_tokens.weight": normal(vocabulary, dim), "model.norm.weight": gains}
    for layer in range(options.layers):
        name = f"model.layers.{layer}."
        out |= {name + "input_layernorm.weight": gains.copy(),
                name + "post_attention_layernorm.weight": gains.copy(),
                name + "self_attn.q_proj.weight": normal(q, dim),
                name + "self_attn.k_proj.weight": normal(kv, dim),
                name + "self_attn.v_proj.weight": normal(kv, dim),
                name + "self_attn.o_proj.weight": normal(dim, q, into_residual),
                name + "mlp.gate_proj.weight": normal(options.mlp, dim),
                name + "mlp.up_proj.weight": normal(options.mlp, dim),
                name + "mlp.down_proj.weight": normal(dim, options.mlp, into_residual)}
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, metavar="FILE", help="what tokens are learnt from")
    parser.add_argument("--out", required=True, metavar="FOLDER")
    parser.add_argument("--vocabulary", type=int, default=4096, help="tokens [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of the weights [%(default)s]")
    for name, value in (("layers", 8), ("dim", 128), ("q-heads", 4), ("kv-heads", 2),
                        ("head-dim", 32), ("mlp", 352), ("context", 384)):
        parser.add_argument("--" + name, type=int, default=value, help="[%(default)s]")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    tokenizer = learn_tokenizer(options)
    vocabulary = tokenizer.get_vocab_size()
    tokenizer.save(os.path.join(options.out, "tokenizer.json"))
    with open(os.path.join(options.out, "config.json"), "w") as file:
        json.dump(config(options, vocabulary), file, indent=1)
    tensors = weights(options, vocabulary)
    save_file(tensors, os.path.join(options.out, "model.safetensors"), {"format": "pt"})
    print(f"{options.out}: {sum(t.size for t in tensors.values())} parameters, "
          f"{vocabulary} tokens")


if __name__ == "__main__":
    main()
