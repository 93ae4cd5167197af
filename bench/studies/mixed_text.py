# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Builds the text of bench/studies/pretraining.py from Debian's packages, always the same bytes.

Four sources (two dictionaries, the documentation of Linux, the King James Bible) are cut at line
ends into pieces of 2 KB or a little more, and the pieces are put into the order of their SHA-256:
every block of 16 KB that `strata-lm train` holds out has something of each, in proportion, and so
have the first few blocks, which is all that --validate reads.
"""
import gzip
import hashlib
import os
import subprocess
import sys

PIECE = 2048
MB = 1_000_000
DOCUMENTATION = "/usr/share/doc/linux-doc-6.1/Documentation"


def dictionary(name):
    path = f"/usr/share/dictd/{name}.dict.dz"
    with gzip.open(path) as file:  # dictzip is gzip with an index
        return file.read()


def documentation():
    """The .rst and .txt sources, less the translations, in the order of their paths."""
    texts = []
    for folder, folders, names in os.walk(DOCUMENTATION):
        folders[:] = sorted(name for name in folders if name != "translations")
        for name in sorted(names):
            plain = name.removesuffix(".gz")
            if not plain.endswith((".rst", ".txt")):
                continue
            opener = gzip.open if plain != name else open
            with opener(os.path.join(folder, name), "rb") as file:
                texts.append(file.read())
    return b"\n\n".join(texts)


def bible():
    return subprocess.run(["bible", "gen1:1-rev22:21"], check=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env={**os.environ, "COLUMNS": "80"}).stdout


# Package, how it is read, and how much of it is taken at most.
SOURCES = [("dict-gcide", lambda: dictionary("gcide"), 18 * MB),
           ("dict-wn", lambda: dictionary("wn"), 14 * MB),
           ("linux-doc", documentation, 18 * MB),
           ("bible-kjv", bible, 5 * MB)]


def pieces(text):
    """Whole lines, PIECE bytes of them or a little more at a time."""
    begin = 0
    while begin < len(text):
        end = text.find(b"\n", begin + PIECE) + 1
        end = end if end > 0 else len(text)
        yield text[begin:end]
        begin = end


def chosen(text, most):
    """(digest, piece) of so many pieces, those of the least digests."""
    size, kept = 0, []
    for digest, piece in sorted((hashlib.sha256(p).digest(), p) for p in pieces(text)):
        if size + len(piece) > most:
            break
        size += len(piece)
        kept.append((digest, piece))
    return kept


def prepare(path):
    kept = []
    for package, read, most in SOURCES:
        try:
            part = chosen(read(), most)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            sys.exit(f"--prepare-text: {error} (apt install {package})")
        if not part:
            sys.exit(f"--prepare-text: nothing was found in package {package}")
        print(f"{package}: {sum(len(piece) for _, piece in part)} bytes", file=sys.stderr)
        kept += part
    with open(path, "wb") as file:
        for _, piece in sorted(kept):
            file.write(piece)
    print(f"{path}: {os.path.getsize(path)} bytes", file=sys.stderr)
