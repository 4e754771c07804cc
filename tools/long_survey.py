"""Store how far the heads of a real model look in long texts: `python tools/long_survey.py`.

Needs QWEN2_BOOK_CHECKPOINT. One text, cut at 2,048 and 8,192 tokens: the three of
`notebooks/data/07_texts`, then the chapters of this book as they stood on that day. For every head,
what it gives to the first token and what windows keep, on every fourth query of the longer one; and
the most memory that the process ever held. For 32,768 tokens only that: layers run one after the
other, so a model that is cut to two of its layers, with all weights in memory, needs the same
room. Written to `notebooks/data/14_long.json`. A quarter of an hour on one core.
"""

import dataclasses
import json
import resource
from pathlib import Path
from typing import Any

from real_model import real_model

from qwen2_book import Qwen2
from qwen2_book.heads import survey

ROOT = Path(__file__).parent.parent
LENGTHS = {2048: 1, 8192: 4}  # tokens -> look at every n-th query
WINDOWS = (8, 32, 128, 512, 2048, 8192)
LONGEST, CUT = 32_768, 2  # tokens, and the layers that are run for the memory only


def long_text() -> str:
    folder = ROOT / "notebooks" / "data" / "07_texts"
    texts = [folder / f"{name}.txt" for name in ("english", "chinese", "code")]
    texts += sorted((ROOT / "notebooks" / "text").glob("[0-9]*.md"))
    return "\n".join(text.read_text(encoding="utf-8") for text in texts)


def peak_gigabytes() -> float:
    """The most memory that this process has held so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)


def rounded(table: Any) -> list[list[float]]:
    return [[round(float(number), 4) for number in row] for row in table]


def measure(model: Qwen2, ids: list[int], every: int) -> dict[str, Any]:
    """One length: shares of the first token, shares that windows keep, memory so far."""
    seen = survey(model, ids, every)
    kept = {}
    for window in WINDOWS:
        if window <= len(ids):
            place = seen.windows.tolist().index(window)
            kept[window] = [rounded(seen.kept[sinks, :, :, place]) for sinks in (0, 1)]
    first = rounded(seen.scores["first"])
    return {"every": every, "first": first, "kept": kept, "peak_gigabytes": peak_gigabytes()}


def peak_of_longest(model: Qwen2, ids: list[int]) -> dict[str, Any]:
    """The memory of the longest prompt, found with the first layers only."""
    model.model.layers = model.model.layers[:CUT]
    model.config = dataclasses.replace(model.config, num_hidden_layers=CUT)
    survey(model, ids[:LONGEST], every=16)
    return {"tokens": LONGEST, "layers": CUT, "gigabytes": peak_gigabytes()}


def main() -> None:
    model, tokenizer = real_model()
    ids = tokenizer.encode(long_text())
    lengths = {length: measure(model, ids[:length], every) for length, every in LENGTHS.items()}
    found = {"source": model.name_or_path, "lengths": lengths, "peak": peak_of_longest(model, ids)}
    text = json.dumps(found, separators=(",", ":")) + "\n"
    (ROOT / "notebooks" / "data" / "14_long.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
