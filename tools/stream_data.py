"""Write what the residual-stream figure shows: `python tools/stream_data.py`.

Needs QWEN2_BOOK_CHECKPOINT. The first tokens of two stories of our own, in English and Chinese
(`notebooks/data/07_texts/`), in float32. Written to `qwen2_book/widgets/residual_stream.json`.
"""

import json
from pathlib import Path

from real_model import real_model

from qwen2_book.trace import residual_states
from qwen2_book.widgets import stream_data

TEXTS = Path(__file__).parent.parent / "notebooks" / "data" / "07_texts"


def main() -> None:
    model, tokenizer = real_model()
    prompts = []
    for name, file in (("English", "english"), ("中文", "chinese")):
        text = (TEXTS / f"{file}.txt").read_text(encoding="utf-8")
        ids = tokenizer.encode(text)[: stream_data.LONGEST]
        states = residual_states(model, ids)[:, 0]
        prompts.append(stream_data.prompt_data(name, tokenizer.pieces(ids), states))
    blocks = model.config.num_hidden_layers
    data = {"source": model.name_or_path, "blocks": blocks, "prompts": prompts}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"
    stream_data.STORED.write_text(text, encoding="utf-8")
    print(f"{stream_data.STORED}: {len(text.encode()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
