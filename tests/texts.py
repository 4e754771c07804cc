"""Strings that are hard for tokenizers: every script, emoji, marks, controls, code, noise."""

import random
import sys
import unicodedata
from functools import cache

SAMPLES = [
    "The quick brown fox can't jump; it's 1234567.89 metres away!  \n\n\tdef f(x): return x**2",
    "我们今天去公园，天气很好。\n二〇二四年，人口约14亿。",
    "Cà phê sữa đá rất ngon. Tôi không biết.",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ ๑๒๓",
    "اللغة العربية تُكتب من اليمين إلى اليسار ١٢٣",
    "Русский язык: щи да каша — пища наша №5",
    "日本語のカタカナとひらがな、漢字。ｶﾞｷﾞ",
    "한국어 문장입니다. 각각",
    "हिन्दी में क्षत्रिय लिखा है।",
    "עברית עם נִקּוּד",
    "ελληνικά ά έ ΐ",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇨🇳 ☕️ 1️⃣",
    "for (int i = 0; i < n; ++i) { a[i] <<= 2; } // done\r\n",
    'if x != None:\n        print(f"{x!r:>10}")\n\n\n',
    "n̈ e\u0301 \u1e9b\u0323 \ufb01 \u212b \u2126 가\u11a8",
    "it'S IT'LL we'Re 'D don't",
    "\u200b\u200d\ufeff\u00a0\u3000\u2028\x00\x07\x1b\x7f\x85",
    "<|im_start|>system\n<|im_end|><|endoftext|><tool_call></tool_call><|fim_prefix|>",
]


@cache
def excluded() -> frozenset[str]:
    """Characters that the two normalisation tables treat differently, computed, not listed."""
    from tokenizers.normalizers import NFC

    library = NFC()
    found = set()
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        for text in (chr(code), f"a{chr(code)}\u0301\u0328\u0345", f"{chr(code)}\u3099"):
            if unicodedata.normalize("NFC", text) != library.normalize_str(text):
                found.add(chr(code))
    return frozenset(found)


@cache
def characters() -> dict[str, list[str]]:
    """Assigned characters by the first letters of their names: scripts, more or less."""
    groups: dict[str, list[str]] = {}
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char) not in ("Cs", "Cn", "Co"):
            name = unicodedata.name(char, "CONTROL").split(" ")[0].split("-")[0]
            groups.setdefault(name, []).append(char)
    return groups


def generated(seed: int, count: int) -> list[str]:
    """`count` strings that a seed decides, of every kind."""
    random_ = random.Random(seed)
    groups = [group for _, group in sorted(characters().items())]
    skip = excluded()
    strings: list[str] = []
    while len(strings) < count:
        kind = random_.randrange(5)
        if kind == 0:  # one script with spaces, digits and marks between
            group = random_.choice(groups)
            text = "".join(
                random_.choice(
                    group if random_.random() < 0.7 else [" ", "  ", "\n", "7", "\u0301", "'s"]
                )
                for _ in range(random_.randrange(1, 24))
            )
        elif kind == 1:  # all scripts mixed
            text = "".join(
                random_.choice(random_.choice(groups)) for _ in range(random_.randrange(16))
            )
        elif kind == 2:  # bytes, decoded with replacement
            text = random_.randbytes(random_.randrange(24)).decode(errors="replace")
        elif kind == 3:  # pieces of the samples, cut anywhere and joined
            parts = [random_.choice(SAMPLES) for _ in range(2)]
            text = "".join(p[random_.randrange(len(p)) :][: random_.randrange(30)] for p in parts)
        else:  # white space, punctuation and letters
            text = "".join(random_.choice(" \t\r\n.,;!?'\"-_=<>|aAbB19é中") for _ in range(20))
        if not skip.intersection(text):
            strings.append(text)
    return strings
