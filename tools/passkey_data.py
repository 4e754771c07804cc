"""Store what chapter 13 shows of pass keys: `python tools/passkey_data.py`, on a real checkpoint.

A five-digit key is hidden in filler text, at several depths and lengths, and read in three ways:
as trained, through a sliding window, in dual chunks. About half an hour on two cores.
"""

import json

from chapter import NOTEBOOKS
from real_model import real_model

from qwen2_book.dual_chunk import with_dual_chunk
from qwen2_book.passkey import digits_found, hidden_key

LENGTHS, DEPTHS = (512, 1024, 2048, 4096), (0.0, 0.33, 0.67, 1.0)
WINDOW, SINKS, CHUNK, LOCAL = 512, 4, 768, 64


def measure() -> dict:
    model, tokenizer = real_model()
    ways = {
        "as trained": model,
        f"window {WINDOW}, {SINKS} sinks": model.with_window(WINDOW, SINKS),
        f"dual chunks of {CHUNK}, {LOCAL}": with_dual_chunk(model, CHUNK, LOCAL),
    }
    found: dict[str, list[list[int]]] = {name: [] for name in ways}
    for length in LENGTHS:
        for name, way in ways.items():
            row = [
                digits_found(way, *hidden_key(tokenizer, length, depth, seed))
                for seed, depth in enumerate(DEPTHS)
            ]
            found[name].append(row)
            print(length, name, row, flush=True)
    return {"lengths": LENGTHS, "depths": DEPTHS, "digits_found": found}


if __name__ == "__main__":
    file = NOTEBOOKS / "data" / "13_passkey.json"
    file.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
