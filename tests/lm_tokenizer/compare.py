# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compares `strata-lm tokens` with the package `tokenizers`, and says where they first differ.

    compare.py PROGRAM TOKENIZER... [--text FILE] [--quick]

PROGRAM is strata-lm. A TOKENIZER is a tokenizer.json; a .gguf, which the package gguf reads here and
strata-lm itself; or a folder with GPT-2's encoder.json and vocab.bpe. Without --text the text is the
King James Bible. Exit codes: 0 all alike, 1 a difference, 77 a package is missing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import texts

try:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
except ImportError:
    print("the package tokenizers is not installed")
    sys.exit(77)


def from_gguf(path):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    get = lambda key: fields["tokenizer.ggml." + key].contents()
    assert get("model") == "gpt2" and get("pre") == "smollm", (get("model"), get("pre"))
    merges = [tuple(m.split(" ")) for m in get("merges")]
    vocabulary = {token: i for i, token in enumerate(get("tokens"))}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    special = [t for t, kind in zip(get("tokens"), get("token_type")) if kind == 3]
    made.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    return made


def from_gpt2(folder):
    made = Tokenizer(models.BPE.from_file(f"{folder}/encoder.json", f"{folder}/vocab.bpe"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    return made


def load(path, folder):
    """The package's tokenizer, a tokenizer.json of it, and what the program shall read."""
    if path.endswith(".json"):
        return Tokenizer.from_file(path), path, path
    made = from_gguf(path) if path.endswith(".gguf") else from_gpt2(path)
    made.decoder = decoders.ByteLevel()
    saved = os.path.join(folder, "tokenizer.json")
    made.save(saved)
    return made, saved, path if path.endswith(".gguf") else saved


def run(program, arguments):
    done = subprocess.run([program, "tokens", *arguments], stdout=subprocess.PIPE, check=True)
    return done.stdout


def first_difference(ours, theirs, reference):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    show = lambda ids: [(i, reference.id_to_token(i)) for i in ids[max(0, at - 2) : at + 4]]
    return f"at token {at}: ours {show(ours)}, theirs {show(theirs)}"


def compare_texts(program, tokenizer, reference, cases, folder, ends, as_text):
    """How many of the texts differ."""
    path = os.path.join(folder, "texts.json")
    with open(path, "w", encoding="utf8") as file:
        json.dump(cases, file)
    flags = ["--ends"] * ends + ["--as-text"] * as_text
    lines = run(program, ["--tokenizer", tokenizer, "--texts", path, *flags]).split(b"\n")
    reference.encode_special_tokens = as_text
    differ = 0
    for text, line in zip(cases, lines):
        ours = [int(number) for number in line.split()]
        theirs = reference.encode(text, add_special_tokens=ends).ids
        if ours == theirs:
            continue
        differ += 1
        if differ <= 3:
            print(f"  differs: {text[:80]!r}, {first_difference(ours, theirs, reference)}")
    reference.encode_special_tokens = False
    assert len(lines) == len(cases) + 1
    return differ


def compare_file(program, tokenizer, reference, path, folder):
    ours = [int(number) for number in run(program, ["--tokenizer", tokenizer, "--text", path]).split()]
    with open(path, encoding="utf8", newline="") as file:
        text = file.read()
    begin = time.time()
    theirs = reference.encode(text, add_special_tokens=False).ids
    rate = len(text.encode()) / 1e6 / (time.time() - begin)
    ids = os.path.join(folder, "ids")
    with open(ids, "w", encoding="ascii") as file:
        file.write(" ".join(map(str, ours)))
    back = run(program, ["--tokenizer", tokenizer, "--ids", ids]).decode() == reference.decode(
        theirs, skip_special_tokens=False
    )
    print(f"  {len(theirs)} tokens of {path}; theirs {rate:.1f} MB/s; decoded {'alike' if back else 'WRONG'}")
    if ours != theirs:
        print("  differs:", first_difference(ours, theirs, reference))
    return int(ours != theirs) + int(not back)


def compare(program, path, text, quick):
    with tempfile.TemporaryDirectory() as folder:
        reference, saved, ours = load(path, folder)
        with open(saved, encoding="utf8") as file:
            added = [t["content"] for t in json.load(file)["added_tokens"]]
        added = added if len(added) < 40 else added[:20] + added[-20:]
        step = 37 if quick else 1
        cases = (
            texts.fixed() + texts.around(added) + texts.long_lines(2000 if quick else 20000)
            + list(texts.characters(0, 0x110000, step))
        )
        differ = 0
        for ends, as_text in ((False, False), (True, False), (False, True)):
            differ += compare_texts(program, ours, reference, cases, folder, ends, as_text)
        if text:
            differ += compare_file(program, ours, reference, text, folder)
        print(f"{path}: {differ} differences in 3 x {len(cases)} texts")
        return differ


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--text")
    parser.add_argument("--quick", action="store_true", help="every 37th code point, shorter lines")
    options = parser.parse_args()
    differ = sum(
        compare(options.program, one, options.text, options.quick) for one in options.tokenizers
    )
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
