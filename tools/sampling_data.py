"""Store the distributions that the sampling figure shows: `python tools/sampling_data.py`.

Needs QWEN2_BOOK_CHECKPOINT. Of each prompt's next-token distribution the 300 likeliest tokens and
those of the prompt are stored one by one, all others as sums. Written to
`qwen2_book/widgets/sampling_knobs.json`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from real_model import real_model

from qwen2_book import Qwen2, Tokenizer
from qwen2_book.widgets.sampling_knobs import LONGEST, STORED, measured, shown

TABLE = "rows = [\n    [0, 0, 0, 1],\n    [0, 0, 1, 0],\n    [0, 1, 0, 0],\n"
PROMPTS = {
    "sea": "My favourite thing about the sea is",
    "France": "The capital of France is",
    "首都": "中国的首都是",
    "晚饭": "今天晚上我想吃",
    "loop": "for i in range(",
    "table": TABLE,
}


@torch.no_grad()
def distribution(model: Qwen2, tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """What is stored of a prompt."""
    ids = tokenizer.encode(text)
    assert len(ids) <= LONGEST
    logits = model(torch.tensor([ids]), last_only=True)[0, 0, : model.vocab_limit].numpy()
    texts = {i: shown(tokenizer.token_bytes(i)) for i in range(len(logits))}
    return {"text": text, **measured(logits.astype("float64"), ids, texts)}


def main() -> None:
    model, tokenizer = real_model()
    prompts = [{"name": n} | distribution(model, tokenizer, text) for n, text in PROMPTS.items()]
    data = {"source": Path(model.name_or_path).name, "prompts": prompts}
    STORED.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
