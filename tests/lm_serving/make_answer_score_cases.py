# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes answer_score_cases.hpp: what others' programs say of pairs of answers. F1, exact match and
the normalised answer are those of SQuAD's evaluation as the package `transformers` has it (4.46.3
wrote what is committed; later versions left it out), ROUGE-L that of Google's `rouge-score` (0.1.2)
on the words that the former finds.

    make_answer_score_cases.py
"""

import os
import random

from rouge_score import rouge_scorer
from transformers.data.metrics import squad_metrics as squad

PAIRS = [
    ("Genesis 3:7", ["Genesis 3:7"]),
    ("Genesis 3:8", ["Genesis 3:7"]),
    ("genesis 37", ["Genesis 3:7"]),
    ("Exodus 3:7", ["Genesis 3:7", "exodus 3:7."]),
    ("The firmament", ["a firmament!"]),
    ("the", ["a"]),
    ("", ["The"]),
    ("", [""]),
    ("", ["light"]),
    ("light", [""]),
    ("an apron of leaves", ["and made themselves aprons"]),
    ("made themselves and aprons", ["and made themselves aprons"]),
    ("aprons themselves made and", ["and made themselves aprons"]),
    ("day day day night", ["day night day", "night night day"]),
    ("day", ["day day day"]),
    ("a b c d e f", ["f e d c b a"]),
    ("co-operate, don't!", ["co operate dont", "cooperate don't"]),
    ("  many \t spaces\nand\x0blines\r\n", ["many spaces and lines"]),
    ("file\x1cgroup\x1drecord\x1eunit\x1f", ["file group record unit"]),
    ("an-a-the", ["ana the"]),
    ("theatre and anthem", ["the atre an d an them"]),
    ("$5,000.00 (five)", ["5000 five", "500000"]),
    ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", ["~"]),
    ("under_score", ["underscore"]),
    ("caf\u00e9 na\u00efve", ["caf\u00e9", "naive caf\u00e9"]),
    ("\u20ac 5", ["5 \u20ac"]),
    ("AND THE LORD SAID", ["And the LORD said, Let there be light"]),
    ("and he said and he went and he came", ["he went and he said and he came", "and he said"]),
]
WORDS = ["and", "the", "And", "a", "he", "said,", "unto", "them:", "go.", "(not)", "an", "day"]


def random_pairs(count):
    pick = random.Random(7)

    def text():
        return " ".join(pick.choice(WORDS) for _ in range(pick.randint(1, 7)))
    return [(text(), [text() for _ in range(pick.randint(1, 3))]) for _ in range(count)]


class Normalised:
    """Words for rouge-score."""

    def tokenize(self, text):
        return squad.normalize_answer(text).split()


def quoted(text):
    """A C++ string literal; octal escapes end by themselves."""
    plain = [chr(b) if 0x20 <= b < 0x7F and chr(b) not in '"\\?' else f"\\{b:03o}"
             for b in text.encode()]
    return '"' + "".join(plain) + '"'


def row(given, accepted):
    rouge = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Normalised())
    f1 = max(squad.compute_f1(one, given) for one in accepted)
    exact = max(squad.compute_exact(one, given) for one in accepted)
    longest = max(rouge.score(one, given)["rougeL"].fmeasure for one in accepted)
    texts = ", ".join(map(quoted, accepted))
    return (f"    {{{quoted(given)}, {quoted(squad.normalize_answer(given))},\n     {{{texts}}},\n"
            f"     {float(f1)!r}, {float(exact)!r}, {float(longest)!r}}},\n")


HEAD = """// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Written by make_answer_score_cases.py, from what other programs say.
#pragma once

#include <string>
#include <vector>

struct answer_score_case {
  std::string given, normalised;
  std::vector<std::string> accepted;
  double f1, em, rouge_l;
};

// clang-format off
inline std::vector<answer_score_case> const answer_score_cases = {
"""


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "answer_score_cases.hpp"), "w", encoding="ascii") as file:
        file.write(HEAD)
        for given, accepted in PAIRS + random_pairs(30):
            file.write(row(given, accepted))
        file.write("};\n// clang-format on\n")


if __name__ == "__main__":
    main()
