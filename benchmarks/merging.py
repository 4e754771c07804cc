"""How byte-pair encoding's time grows with the length of a piece, and training's with the merges.

    python -m benchmarks.merging [--rounds 3]

The definition (`merge_slowly`) and the heap (`merge`) on one piece of letters without a
space, with the ranks of the tiny checkpoint; then training by counting everything again, and
with an index. Writes benchmarks/merging.json. Needs no other checkpoint.
"""

import argparse
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import qwen2_book
from benchmarks.machine import machine
from qwen2_book import Tokenizer, bpe

HERE = Path(__file__).parent
TEXTS = HERE.parent / "notebooks" / "data" / "07_texts"
TINY = Path(qwen2_book.__file__).parent / "assets" / "tiny"
LENGTHS = (256, 512, 1024, 2048, 4096)
MERGES = (50, 100, 200, 400)


def train_slowly(texts: list[str], size: int) -> list[tuple[str, str]]:
    """The definition of training: count all pairs of all words again for every merge."""
    counts = Counter(word for text in texts for word in bpe.words(text))
    pieces = {word: list(word) for word in counts}
    learnt = []
    for _ in range(size):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, tokens in pieces.items():
            for pair in pairwise(tokens):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learnt.append(best)
        pieces = {word: bpe._join(tokens, best) for word, tokens in pieces.items()}
    return learnt


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """The slope of log(value) over log(size): 1 is linear growth, 2 is quadratic."""
    return statistics.linear_regression([*map(math.log, sizes)], [*map(math.log, values)]).slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    tokenizer = Tokenizer.from_file(TINY, backend="python")
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    texts = [(TEXTS / f"{name}.txt").read_text(encoding="utf-8") for name in ("english", "chinese")]
    letters = "".join(c for c in texts[0].lower() if "a" <= c <= "z") * 4
    found: dict[str, dict[int, list[float]]] = {}

    def note(call: Callable[..., object], size: int, *arguments: object) -> None:
        runs = found.setdefault(call.__name__, {}).setdefault(size, [])
        runs.append(seconds(partial(call, *arguments)))

    for _ in range(rounds):
        for n in LENGTHS:
            note(bpe.merge_slowly, n, letters[:n], ranks)
            note(bpe.merge, n, letters[:n], ranks)
        for n in MERGES:
            note(train_slowly, n, texts, n)
            note(bpe.train, n, texts, n)
    best = {form: {n: min(runs) for n, runs in each.items()} for form, each in found.items()}
    results = {
        "machine": machine(),
        "rounds": rounds,
        "seconds": best,
        "exponents": {
            form: exponent(LENGTHS, [best[form][n] for n in LENGTHS])
            for form in ("merge_slowly", "merge")
        },
        "runs": found,
    }
    (HERE / "merging.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: results[key] for key in ("seconds", "exponents")}, indent=1))


if __name__ == "__main__":
    main()
