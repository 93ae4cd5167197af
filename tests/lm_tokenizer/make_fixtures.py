# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes fixtures/: small tokenizers of the kinds that models have, trained by the package `tokenizers`
(0.23.3 wrote what is committed) on the King James Bible and texts.py, and the ids that it gives for
hostile texts.

    make_fixtures.py TEXT
"""

import json
import os
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

import texts

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

byte_level = pre_tokenizers.ByteLevel
split = pre_tokenizers.Split


def special(*contents):
    return [AddedToken(c, normalized=False, special=True) for c in contents]


def gpt2():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = byte_level(add_prefix_space=False)
    return made, 1000, special("<|endoftext|>")


def llama3():
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split(Regex(LLAMA3), "isolated"), byte_level(add_prefix_space=False, use_regex=False)]
    )
    return made, 1200, special("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")


def qwen():
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split(Regex(QWEN2), "isolated"), byte_level(add_prefix_space=False, use_regex=False)]
    )
    plain = [AddedToken(c, normalized=False, special=False) for c in ("<think>", "</think>")]
    return made, 1200, special("<|endoftext|>", "<|im_start|>", "<|im_end|>") + plain


def smollm2():
    """Its alphabet has gaps, as the real one has."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level(add_prefix_space=False)]
    )
    return made, 1000, special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>")


def odd():
    """What the others do not have."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.NFC()])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            split("--", "merged_with_previous"),
            split(Regex(r"[A-Z]+"), "merged_with_next"),
            split(Regex(r"[^,;]"), "contiguous", invert=True),
            split("|", "removed"),
            pre_tokenizers.Digits(individual_digits=False),
            byte_level(add_prefix_space=True),
        ]
    )
    added = [
        AddedToken("[left]", lstrip=True, normalized=False),
        AddedToken("[right]", rstrip=True, normalized=False),
        AddedToken("[both]", lstrip=True, rstrip=True, normalized=True, special=True),
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("é", single_word=True, normalized=True),
        AddedToken("[bo", normalized=False),
    ]
    return made, 700, special("<unk>") + added


def unreachable(document):
    """Takes away merges of tokens of which no others are made: only ignore_merges finds them then."""
    merges = document["model"]["merges"]
    used = {part for merge in merges for part in merge}
    last = [m for m in merges if "".join(m) not in used]
    dropped = {"".join(m) for m in last[::5]}
    document["model"]["merges"] = [m for m in merges if "".join(m) not in dropped]


def save(made, name):
    path = os.path.join(FOLDER, name + ".json")
    document = json.loads(made.to_str())
    if name == "llama3":
        unreachable(document)
    if name == "gpt2":  # as files of older versions spell merges
        document["model"]["merges"] = [" ".join(m) for m in document["model"]["merges"]]
    with open(path, "w", encoding="utf8") as file:
        json.dump(document, file, ensure_ascii=False, separators=(",", ":"))
    return Tokenizer.from_file(path)


def case(made, text, ends):
    found = {"text": text, "ids": made.encode(text, add_special_tokens=False).ids}
    made.encode_special_tokens = True
    as_text = made.encode(text, add_special_tokens=False).ids
    made.encode_special_tokens = False
    if as_text != found["ids"]:
        found["as_text"] = as_text
    decoded = made.decode(found["ids"], skip_special_tokens=False)
    if decoded != text and "\ufffd" not in decoded:
        found["decoded"] = decoded
    if ends:
        found["ends"] = made.encode(text).ids
    return found


def train(make, corpus):
    made, size, added = make()
    name = make.__name__
    alphabet = byte_level.alphabet()
    if name == "smollm2":
        alphabet = [c for c in alphabet if not "\u00f0" <= c <= "\u00ff"]
    if name == "odd":
        alphabet = [c for c in alphabet if not "\u00ee" <= c <= "\u00ff"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=added if name == "smollm2" else special("<unk>") * (name == "odd"),
        initial_alphabet=sorted(alphabet),
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    made.train_from_iterator(corpus, trainer)
    made.add_tokens(added)
    if name == "llama3":
        made.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single="<|begin_of_text|> $A <|eot_id|>",
                    special_tokens=[
                        (t, made.token_to_id(t)) for t in ("<|begin_of_text|>", "<|eot_id|>")
                    ],
                ),
            ]
        )
    made.decoder = decoders.ByteLevel()
    made = save(made, name)
    strings = texts.fixed() + texts.around([a.content for a in added][:4])
    strings += texts.long_lines(240) + list(texts.characters(0x80, 0x110000, 2003))
    if name == "odd":
        strings += ["a--b----c -- d--", "ABCdEF GHi 'AB", "a,,b;,c,d;;", "a|b||c|", "12 345a6", "words word"]
        strings += texts.around([a.content for a in added][4:])
    cases = [case(made, text, name == "llama3" and i < 4) for i, text in enumerate(strings)]
    with open(os.path.join(FOLDER, name + ".cases.json"), "w", encoding="utf8") as file:
        json.dump(cases, file, ensure_ascii=False, separators=(",", ":"))


def main():
    with open(sys.argv[1], encoding="utf8", newline="") as file:
        bible = file.read()
    corpus = [bible[at : at + 4096] for at in range(0, len(bible), 4096)]
    corpus += (texts.ENGLISH + texts.SCRIPTS + texts.EMOJI) * 20
    os.makedirs(FOLDER, exist_ok=True)
    for make in (gpt2, llama3, qwen, smollm2, odd):
        train(make, corpus)


if __name__ == "__main__":
    main()
