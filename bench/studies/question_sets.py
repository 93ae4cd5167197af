#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Questions with passages, built by rules from texts that Debian ships, for `strata-lm answer`.

    bench/studies/question_sets.py --out build/questions

writes train.jsonl (4000 questions of each set) and test.jsonl (128 of each). A line is
{"set", "passages", "question", "answers"}. It needs Debian's bible-kjv and dict-wn, and nothing
else but Python; the same --seed gives the same files.

The sets:
  verses       Three to five verses that follow each other; a passage is a verse with its reference,
               which the question names or asks for: how a verse begins, how it ends, what comes
               after a clause, which verse says a clause. Clauses are what punctuation cuts, of 3 to
               12 words; a clause in a question stands in one of the passages only.
  definitions  Four to six words of WordNet with the first definition of each: which word is defined
               so, or what a word means. Left out are words that begin as a word of their definition
               does, for they give themselves away, and abuse, which the dictionary marks.
  passages     Four or five passages of which no two verses are of one chapter. Two steps lead to
               the answer. Of defined words: two passages are definitions, and each defined word
               stands in one verse; the question gives a definition only, and asks which verse uses
               that word, or how that verse begins or ends. Of names: the question gives a name that
               is in one of five verses, and asks how that verse begins or ends.

Train and test have no source in common: a chapter, and likewise a definition, belongs to the test
if the first byte of the SHA-256 of its name is below 26, about one in ten, whatever the seed. Every
passage of a question, whether it answers or distracts, comes from its own side; verses that stand
word for word in two places are in no question. No question with its passages comes twice. The text
in which a model sees one (context, question, answer and the words between them) is at most
--most-bytes long. Passages are shuffled, but for verses.
"""
import argparse
import collections
import gzip
import hashlib
import json
import os
import random
import re
import subprocess
import sys

WORDNET = "/usr/share/dictd/wn.dict.dz"
FRAME_BYTES = len("Context: Question: \nAnswer: ")
TEST_BELOW = 26  # of 256
ABUSE = re.compile(r"slur|offensive|disparag|derogat|obscene|vulgar|slang|sexual")

Verse = collections.namedtuple("Verse", "chapter reference text clauses once")
Entry = collections.namedtuple("Entry", "word definition")


def is_test(source):
    return hashlib.sha256(source.encode()).digest()[0] < TEST_BELOW


# Sources.

def clauses_of(text):
    """What punctuation cuts, in order, without it."""
    parts = re.split(r"[,;:.?!)]+(?:\s+|$)|\(", text)
    return [part.strip(" '\"") for part in parts if part.strip(" '\"")]


def read_verses():
    """Every verse of the King James Bible, and whether its text stands there once."""
    out = subprocess.run(["bible", "-l20000", "gen1:1-rev22:21"], check=True, text=True,
                         stdin=subprocess.DEVNULL, capture_output=True).stdout
    verses, chapter = [], None
    for line in out.splitlines():
        verse = re.fullmatch(r" *(\d+) (.*\S)\s*", line)
        if verse and line.startswith(" "):
            text = re.sub(r"\s+", " ", verse[2])
            verses.append(Verse(chapter, f"{chapter}:{verse[1]}", text, clauses_of(text), True))
        elif line.strip():
            chapter = line.strip()
    count = collections.Counter(v.text for v in verses)
    return [v._replace(once=count[v.text] == 1) for v in verses]


def first_definition(entry):
    """Of a WordNet entry's text, without examples, synonyms and what a semicolon adds."""
    text = re.sub(r"\s+", " ", entry)
    found = re.match(r" (?:n|v|adj|adv)(?: 1)?: (.*?)(?= \[| (?:n |v |adj |adv )?\d+: |;|$)", text)
    return found[1].strip() if found else ""


def akin(a, b):
    """Whether two words begin alike: in five letters, or in all of one that has four."""
    alike = len(os.path.commonprefix([a, b]))
    return alike >= 4 and alike >= min(len(a), len(b), 5)


def gives_itself_away(word, definition):
    return any(akin(a, b) for a in word.split()
               for b in re.findall(r"[a-z]+", definition.lower()))


def read_entries():
    """Words of WordNet with definitions of 3 to 12 words, each word and each definition once."""
    with gzip.open(WORDNET, "rt", encoding="utf-8") as file:
        text = file.read()
    words, definitions, out = set(), set(), []
    for part in re.split(r"\n(?=\S)", text):
        word, _, entry = part.partition("\n")
        definition = first_definition("\n" + entry)
        known = word in words or definition in definitions
        words.add(word)
        definitions.add(definition)
        fits = (re.fullmatch(r"[a-z]{4,}( [a-z]{3,})?", word) and 3 <= len(definition.split()) <= 12
                and re.fullmatch(r"[A-Za-z0-9 ,'()-]+", definition))
        bad = ABUSE.search(entry) or gives_itself_away(word, definition)
        if fits and not known and not bad:
            out.append(Entry(word, definition))
    return out


# Questions.

def is_short(clause, most=12):
    return 3 <= len(clause.split()) <= most


def shown(verse):
    return f"{verse.reference} {verse.text}"


def defined(entry):
    return f"{entry.word}: {entry.definition}"


def question(name, passages, text, answer):
    return {"set": name, "passages": passages, "question": text, "answers": [answer]}


def size_of(q):
    return FRAME_BYTES + sum(len(p.encode()) + 1 for p in q["passages"]) + \
        len(q["question"].encode()) + len(q["answers"][0].encode())


def occurrences(words, verses):
    """How often words stand in verses, as whole words and whatever their case."""
    pattern = r"\b" + re.escape(words) + r"\b"
    return sum(len(re.findall(pattern, verse.text, re.IGNORECASE)) for verse in verses)


def verse_question(pick, verses):
    """One of consecutive verses of a chapter; None where the draw was no good."""
    at = pick.randrange(len(verses))
    around = verses[at:at + pick.randint(3, 5)]
    if len(around) < 3 or any(v.chapter != around[0].chapter or not v.once for v in around):
        return None
    verse = pick.choice(around)
    clauses, ref = verse.clauses, verse.reference
    kind = pick.choice(["begin", "end", "after", "after", "which", "which"])
    at = pick.randrange(len(clauses))
    if kind == "begin":
        text, answer = f"How does {ref} begin?", clauses[0]
    elif kind == "end":
        text, answer = f"How does {ref} end?", clauses[-1]
    elif occurrences(clauses[at], around) != 1 or not is_short(clauses[at]):
        return None
    elif kind == "which":
        return question("verses", list(map(shown, around)),
                        f'Which verse says "{clauses[at]}"?', ref)
    elif at + 1 == len(clauses):
        return None
    else:
        text, answer = f'In {ref}, what comes after "{clauses[at]}"?', clauses[at + 1]
    if len(clauses) < 2 or not is_short(answer):
        return None
    return question("verses", list(map(shown, around)), text, answer)


def definition_question(pick, entries):
    among = pick.sample(entries, pick.randint(4, 6))
    asked = pick.choice(among)
    passages = list(map(defined, among))
    if pick.random() < 0.5:
        return question("definitions", passages,
                        f'Which word is defined as "{asked.definition}"?', asked.word)
    return question("definitions", passages, f'What does "{asked.word}" mean?', asked.definition)


def ask_of_verse(pick, passages, that_verse, verse, kinds):
    """How the verse that is described begins or ends, or which it is."""
    kind = pick.choice(kinds)
    if kind == "which":
        return question("passages", passages, f"Which is {that_verse}?", verse.reference)
    answer = verse.clauses[0 if kind == "begin" else -1]
    if len(verse.clauses) < 2 or not is_short(answer):
        return None
    return question("passages", passages, f"How does {that_verse} {kind}?", answer)


def defined_word_question(pick, uses, verses):
    """Definition to word to verse. `uses`: (entry, its verses) of words that verses use."""
    (first, in_first), (second, in_second) = pick.sample(uses, 2)
    chosen = [pick.choice(in_first), pick.choice(in_second), pick.choice(verses)]
    once = occurrences(first.word, chosen) == 1 and occurrences(second.word, chosen) == 1
    if not once or len({v.chapter for v in chosen}) < 3:
        return None
    passages = [defined(first), defined(second)] + list(map(shown, chosen))
    pick.shuffle(passages)
    return ask_of_verse(pick, passages, f'the verse that uses the word for "{first.definition}"',
                        chosen[0], ["which", "begin", "end"])


def name_question(pick, named, verses):
    """Name to verse to how it begins or ends."""
    name, of_name = pick.choice(named)
    chosen = [pick.choice(of_name)] + pick.sample(verses, 4)
    if occurrences(name, chosen) != 1 or len({v.chapter for v in chosen}) < 5:
        return None
    passages = list(map(shown, chosen))
    pick.shuffle(passages)
    q = ask_of_verse(pick, passages, f"the verse that names {name}", chosen[0], ["begin", "end"])
    return None if q is None or name in q["answers"][0] else q


def entries_in_use(entries, verses):
    """Entries of single words that 1 to 30 verses use, with those verses."""
    where = collections.defaultdict(list)
    for verse in verses:
        for word in sorted(set(re.findall(r"[a-z]+", verse.text))):
            where[word].append(verse)
    return [(e, where[e.word]) for e in entries if 1 <= len(where.get(e.word, [])) <= 30]


def names_in_use(verses):
    """Names that 1 to 40 verses have, with those verses: words that no verse has in lower case and
    that stand inside of clauses as well."""
    where, inside, small = collections.defaultdict(list), set(), set()
    for verse in verses:
        small.update(re.findall(r"\b[a-z]+\b", verse.text))
        for name in sorted(set(re.findall(r"\b[A-Z][a-z]{2,}\b", verse.text))):
            where[name].append(verse)
        for clause in verse.clauses:
            inside.update(re.findall(r"\b[A-Z][a-z]{2,}\b", clause.partition(" ")[2]))
    return [(name, found) for name, found in sorted(where.items())
            if name in inside and name.lower() not in small and len(found) <= 40]


def draw(count, most_bytes, make):
    """So many different questions that fit."""
    seen, out, tries = set(), [], 0
    while len(out) < count:
        tries += 1
        if tries > 2000 + 100 * count:
            sys.exit(f"question_sets.py: {tries} draws gave only {len(out)} of {count} questions; "
                     "ask for fewer or raise --most-bytes")
        q = make()
        if q is None or size_of(q) > most_bytes:
            continue
        key = json.dumps([sorted(q["passages"]), q["question"]])
        if key not in seen:
            seen.add(key)
            out.append(q)
    return out


def side(test, count, options, verses, entries):
    """All questions of train or of test."""
    verses = [v for v in verses if is_test(v.chapter) == test]
    entries = [e for e in entries if is_test(e.definition) == test]
    # Short ones, of which several fit; those with one clause say nothing about another.
    brief = [v for v in verses if v.once and len(v.text) <= 190 and len(v.clauses) >= 2]
    uses, named = entries_in_use(entries, brief), names_in_use(brief)

    def passage_question():
        if pick.random() < 0.6:
            return defined_word_question(pick, uses, brief)
        return name_question(pick, named, brief)

    out = []
    for name, make in [("verses", lambda: verse_question(pick, verses)),
                       ("definitions", lambda: definition_question(pick, entries)),
                       ("passages", passage_question)]:
        pick = random.Random(f"{options.seed} {name} {test}")
        out += draw(count, options.most_bytes, make)
    return out


def write(path, questions):
    with open(path, "w", encoding="utf-8") as file:
        for q in questions:
            file.write(json.dumps(q, ensure_ascii=False) + "\n")
    for name, count in collections.Counter(q["set"] for q in questions).items():
        sizes = [size_of(q) for q in questions if q["set"] == name]
        print(f"{path}: {count} of {name}, {sum(sizes) / count:.0f} bytes on average, "
              f"{max(sizes)} at most")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="a folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=4000, help="questions of each set")
    parser.add_argument("--test", type=int, default=128, help="questions of each set")
    parser.add_argument("--most-bytes", type=int, default=900)
    options = parser.parse_args()
    if min(options.train, options.test) < 1:
        sys.exit(f"question_sets.py: --train is {options.train} and --test {options.test}; both "
                 "must be from 1 on")
    os.makedirs(options.out, exist_ok=True)
    verses, entries = read_verses(), read_entries()
    for name, test, count in [("train", False, options.train), ("test", True, options.test)]:
        write(os.path.join(options.out, name + ".jsonl"),
              side(test, count, options, verses, entries))


if __name__ == "__main__":
    main()
