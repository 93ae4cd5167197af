# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Texts on which tokenizers go wrong. Shared by make_fixtures.py and compare.py."""

import unicodedata

WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
# Some readers' white space, and nobody's here.
ALMOST_WHITE = "\u180e\u200b\u200c\u200d\u2060\ufeff\x1c\x1d\x1e\x1f"

SCRIPTS = [
    "مرحبًا بالعالم، كَتَبَ الطَّالِبُ ١٢٣ دَرْسًا",
    "नमस्ते दुनिया! क़लम और ज़मीन १२३ क्षत्रिय",
    "你好，世界！今天是2024年1月1日。臺灣『繁體』",
    "こんにちは世界 カタカナ ﾊﾝｶｸ 12月３１日",
    "안녕하세요 세계 각 한",
    "สวัสดีชาวโลก น้ำ ๑๒๓",
    "Привет, мир! Ёлка й й",
    "Γειά σου Κόσμε ΐ",
    "שָׁלוֹם עוֹלָם",
    "Việt Nam đẹp lắm ế ế",
    "Ångström Å Å é é ẛ̣ ﬁ ﬀ Ⅳ ½ ² ₃ ①",
    "தமிழ் ௧௨௩ తెలుగు ಕನ್ನಡ മലയാളം",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 𐍈 𒀀 𓀀",
]

EMOJI = [
    "👍👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ ❤️ ☕️ 🤷🏽‍♀️",
    "a👍b 👍 c👍\n👍",
]

ENGLISH = [
    "",
    " ",
    "a",
    "Hello, world! It's John's; we'll, they're, I'd, I've, I'm, can't, o'clock.",
    "IT'S JOHN'S; WE'LL, THEY'RE, I'D, I'VE, I'M, CAN'T 'S'T'RE'VE'M'LL'D",
    "it’s we’ll they’re I’d CAN’T ‘quoted’ “so”",
    "'ſ 'S 'ſt 'K 'LL 'lL 'Re 'rE''s '' 's's",
    "1 12 123 1234 12345 1,234,567.89 0x1F 3.14e-10 1st 2nd x2y3 ½3 ²2 १२३४ ٣٤٥",
    "foo_bar __init__ a-b--c a.b..c ... ?!?! #$%^&*() <tag/> {\"k\": [1, 2]}\n\n\treturn x;\n",
    "camelCaseWORDSAndMore  two   three    four\t\ttabs\t \tmixed",
    "line\nline\r\nline\r\rline\n\n\nline\r\n\r\n  line  \n  \n end   ",
    "\n", "\r\n", "\n\n", "   \n", "\n   ", " \n \n ", "   ", "a   ", "   a", "\t", " \t ",
    "a\x00b\x01\x02 \x1b[31mred\x1b[0m \x7f\x80\x9f end",
    "http://example.com/a?b=c&d=e#f user@example.org C:\\path\\file.txt",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324a\u0300\u0301\u0302\u0303\u0304lgo",
    "e\u0301 \u0301e \u0301\u0301 a\u0327\u0301 a\u0301\u0327 \u1100\u1161\u11a8 \u212b \u2126 \u0344 \u0958",
    "a b\u2009c\u3000d\u2028e\u2029f\x85g\x0bh\x0ci",
    "\ufeffbyte order mark\u200b\u200d\ufffd\ufffe\U0010ffff\U000e0041",
]


def white_space():
    """Each kind of white space alone, in runs, at the ends and beside letters, digits and marks."""
    texts = []
    for w in WHITE_SPACE + ALMOST_WHITE:
        texts.append(f"{w}a{w}{w}b{w}{w}{w}c {w}d{w} e{w}\n{w}f{w}1{w}{w}!{w}{w}\n\n{w}")
    texts.append(WHITE_SPACE + "x" + WHITE_SPACE)
    texts.append((WHITE_SPACE + ALMOST_WHITE) * 2)
    return texts


def long_lines(size):
    """Pieces that no cache holds."""
    return [
        "a" * size, "ab" * (size // 2), " " * size, " " * size + "a", "\n" * size, " \n" * (size // 2),
        "!" * size, "7" * size, "\u0301" * (size // 2), "é" * (size // 2), "你好" * (size // 4),
        "👍" * (size // 4), "'s" * (size // 2), "the quick brown " * (size // 16), "\t \n" * (size // 3),
    ]


def around(tokens):
    """Added tokens at the ends, in a row, inside words, in white space, broken and nested."""
    texts = []
    for t in tokens:
        texts += [
            t, t + t, f"a{t}b", f"a {t} b", f" \n{t}\t b", f"x{t}{t}y{t[:-1]}{t}", f"{t[1:]} {t[:-1]}",
            f"é{t}é 1{t}2 _{t}_ \u0301{t}\u0301 \u200d{t}", f"  {t}  {t}  ", f"<{t}> {t.upper()} {t}s 's{t}'s",
            f"\u00a0{t}\u3000{t}\u180e{t}\x1c", f"Ⓐ{t} 🄰{t} Ⅳ{t} ²{t} ‿{t}",
        ]
    texts.append("".join(tokens) + " ".join(tokens))
    return texts


def assigned(code):
    """Whether Unicode 14, which Python 3.11 knows and PCRE2 10.42 has, assigns it."""
    return unicodedata.category(chr(code)) not in ("Cn", "Cs")


def characters(first, last, step, per_text=64, only=assigned):
    """Every so many-th code point beside letters, digits, spaces and an apostrophe."""
    codes = [c for c in range(first, last, step) if not 0xD800 <= c < 0xE000 and only(c)]
    for begin in range(0, len(codes), per_text):
        yield "".join(
            f"a{c}b 1{c}2 {c}{c}!{c} '{c}s\n" for c in map(chr, codes[begin : begin + per_text])
        )


def fixed():
    return ENGLISH + SCRIPTS + EMOJI + white_space()
