#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a text in which lines come twice, for small models that are to learn to look up.

    bench/studies/repeated_text.py --text text.txt --out repeated.txt

Two to five lines of --text that follow each other, then some of them again in another order, and so
on until --bytes. What comes again can be copied from what came before: two fifths of the tokens
teach that, where plain text seldom does. A model of two million parameters (small_model.py) that has
read this for 6.5 million tokens, twenty minutes of two cores, learns from 4800 questions to answer
from their passages: 0.8 nats per token of an answer. From plain text alone it had 2.6 after as many,
and answers as if the passages were not there. The same arguments give the same bytes.
"""
import argparse
import random

SHORTEST = 30  # bytes of a line: less is markup and ends of paragraphs


def read_lines(path):
    with open(path, "rb") as file:
        lines = (line.strip() for line in file)
        return [line for line in lines if len(line) >= SHORTEST]


def twice(pick, lines):
    """Some lines, and some of them again."""
    count = pick.randint(2, 5)
    at = pick.randrange(len(lines) - count)
    first = lines[at:at + count]
    again = pick.sample(first, pick.randint(1, count))
    return b"\n".join(first + again) + b"\n\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--bytes", type=int, default=40_000_000, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    pick, lines, written = random.Random(options.seed), read_lines(options.text), 0
    with open(options.out, "wb") as file:
        while written < options.bytes:
            written += file.write(twice(pick, lines))


if __name__ == "__main__":
    main()
