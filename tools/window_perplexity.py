"""Measure perplexity under a window on a real checkpoint: `python tools/window_perplexity.py`.

Needs QWEN2_BOOK_CHECKPOINT. Three texts of our own, in English, Chinese and Python
(`notebooks/data/07_texts/`), each under windows of 4 tokens to all, with 0, 1 and 4 first tokens
kept visible, in float32. Written to `notebooks/data/07_window_perplexity.json`.
"""

import json
from pathlib import Path

import torch
from real_model import real_model
from torch.nn.functional import cross_entropy

from qwen2_book import Qwen2

DATA = Path(__file__).parent.parent / "notebooks" / "data"
SINKS = (0, 1, 4)
LONGEST = 768  # tokens of each text


@torch.no_grad()
def perplexity(model: Qwen2, ids: list[int], window: int | None, sinks: int) -> float:
    """Perplexity of a text under a window; None shows everything."""
    tokens = torch.tensor([ids])
    logits = model.with_window(window, sinks)(tokens)[0, :-1]
    return float(cross_entropy(logits, tokens[0, 1:]).exp())


def main() -> None:
    model, tokenizer = real_model()
    windows = [4, 8, 16, 32, 64, 128, 256, 512]
    texts = {}
    for name in ("english", "chinese", "code"):
        text = (DATA / "07_texts" / f"{name}.txt").read_text(encoding="utf-8")
        ids = tokenizer.encode(text)[:LONGEST]
        texts[name] = {
            "tokens": len(ids),
            "full": round(perplexity(model, ids, None, 0), 3),
            "by_sinks": {
                str(sinks): [round(perplexity(model, ids, w, sinks), 3) for w in windows]
                for sinks in SINKS
            },
        }
        print(name, texts[name])
    stored = {
        "command": "python tools/window_perplexity.py",
        "source": model.name_or_path,
        "windows": windows,
        "texts": texts,
    }
    path = DATA / "07_window_perplexity.json"
    path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
