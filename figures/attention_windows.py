"""Draw attention_windows.svg: eight heads of the real checkpoint under a window of six tokens.

QWEN2_BOOK_CHECKPOINT=folder python figures/attention_windows.py
"""

import os
import sys
from pathlib import Path

import torch

from qwen2_book import load, trace
from qwen2_book.plots import attention_windows, save_figure

PROMPT = "Alice gave the red ball to Bob. Then Bob gave the red"
WINDOW = 6


def main() -> None:
    source = os.environ.get("QWEN2_BOOK_CHECKPOINT")
    if not source:
        sys.exit("Set QWEN2_BOOK_CHECKPOINT: the figure shows a real checkpoint's heads.")
    model, tokenizer = load(source, device="cpu", dtype="float32")
    ids = tokenizer.encode(PROMPT)
    seen = trace(model, ids)
    kept = torch.stack(
        [seen.mass_in_window(layer, WINDOW)[0].mean(-1) for layer in sorted(seen.attention)]
    )
    order = kept.flatten().argsort(descending=True)
    eight = [int(order[i]) for i in torch.linspace(0, len(order) - 1, 8).long()]
    heads = [divmod(i, kept.shape[1]) for i in eight]  # from the most local to the least
    figure = attention_windows(seen, tokenizer.pieces(ids), heads, WINDOW)
    save_figure(figure, Path(__file__).with_suffix(".svg"), "svg")


if __name__ == "__main__":
    main()
