"""Store the real attention that the head-window figure shows: `python tools/head_data.py`.

Needs QWEN2_BOOK_CHECKPOINT. The first 128 tokens of two texts of our own, English and Chinese
(`notebooks/data/07_texts`), run once in float32; kept are the distance curves of all heads and the
whole maps of sixteen, four for each of four scores on the English text. Written to
`qwen2_book/widgets/head_window.json`.
"""

import json
import sys
from pathlib import Path

import torch
from real_model import real_model

from qwen2_book import trace
from qwen2_book.widgets import head_data

TEXTS = Path(__file__).parent.parent / "notebooks" / "data" / "07_texts"


def best(attention: torch.Tensor, ids: list[int]) -> list[tuple[int, int]]:
    """Sixteen heads, no two alike: the four highest of each of four scores."""
    rows = torch.arange(1, len(ids))
    later = [(i, j + 1) for i in range(len(ids)) for j in range(i) if ids[i] == ids[j]]
    scores = {
        "sink": attention[:, :, rows, 0].mean(-1),
        "previous": attention[:, :, rows, rows - 1].mean(-1),
        "repeat": torch.stack([attention[:, :, i, j] for i, j in later]).mean(0),
        "spread": torch.special.entr(attention).sum(-1).mean(-1),
    }
    chosen: list[tuple[int, int]] = []
    for score in scores.values():
        order = score.flatten().argsort(descending=True).tolist()
        heads = [divmod(place, score.shape[1]) for place in order]
        chosen += [head for head in heads if head not in chosen][:4]
    return sorted(chosen)


def main() -> None:
    model, tokenizer = real_model()
    prompts = []
    mapped: list[tuple[int, int]] = []
    for name, file in (("English", "english"), ("中文", "chinese")):
        text = (TEXTS / f"{file}.txt").read_text(encoding="utf-8")
        ids = tokenizer.encode(text)[: head_data.LONGEST]
        if len(ids) < head_data.LONGEST:
            sys.exit(f"{name}: {len(ids)} tokens, expected at least {head_data.LONGEST}")
        seen = trace(model, ids)
        layers = sorted(seen.attention)
        mapped = mapped or best(torch.stack([seen.attention[n][0] for n in layers]), ids)
        prompts.append(head_data.prompt_data(name, tokenizer.pieces(ids), seen, mapped))
    config = model.config
    data = {
        "source": model.name_or_path,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "mapped": mapped,
        "prompts": prompts,
    }
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    head_data.STORED.write_text(text, encoding="utf-8")
    print(f"{head_data.STORED}: {len(text.encode()) / 1000:.0f} kB, heads {mapped}")


if __name__ == "__main__":
    main()
