"""Store how far the heads of a real model look in long texts: `python tools/long_survey.py`.

Needs QWEN2_BOOK_CHECKPOINT. One text, cut at 2,048, 8,192 and 32,768 tokens: the three of
`notebooks/data/07_texts`, then the chapters of this book as they stood on that day. For every head,
what it gives to the first token and what windows keep, on every n-th query of the longer ones; and
the most memory that the process ever held. Written to `notebooks/data/14_long.json` after each
length. The longest takes half an hour on one core.
"""

import json
import resource
from pathlib import Path
from typing import Any

from real_model import real_model

from qwen2_book.heads import survey

ROOT = Path(__file__).parent.parent
LENGTHS = {2048: 1, 8192: 4, 32_768: 16}  # tokens -> look at every n-th query
WINDOWS = (8, 32, 128, 512, 2048, 8192, 32_768)


def long_text() -> str:
    texts = [
        ROOT / "notebooks" / "data" / "07_texts" / f"{n}.txt"
        for n in ("english", "chinese", "code")
    ]
    texts += sorted((ROOT / "notebooks" / "text").glob("[0-9]*.md"))
    return "\n".join(text.read_text(encoding="utf-8") for text in texts)


def main() -> None:
    model, tokenizer = real_model()
    ids = tokenizer.encode(long_text())
    found: dict[str, Any] = {"source": model.name_or_path, "lengths": {}}
    for length, every in LENGTHS.items():
        seen = survey(model, ids[:length], every)
        places = {w: seen.windows.tolist().index(w) for w in WINDOWS if w <= length}
        found["lengths"][length] = {
            "every": every,
            "first": [[round(float(x), 4) for x in row] for row in seen.scores["first"]],
            "kept": {
                window: [
                    [[round(float(x), 4) for x in row] for row in seen.kept[sinks, :, :, place]]
                    for sinks in (0, 1)
                ]
                for window, place in places.items()
            },
            "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1),
        }
        text = json.dumps(found, separators=(",", ":")) + "\n"
        (ROOT / "notebooks" / "data" / "14_long.json").write_text(text, encoding="utf-8")
        print(length, {w: (seen.fitting(w), seen.fitting(w, first=True)) for w in places})


if __name__ == "__main__":
    main()
