"""Store what chapter 13 shows of pass keys: `python tools/passkey_data.py`, on a real checkpoint.

Five-digit keys are hidden in filler text, at several depths and lengths, and read in five ways: as
trained, through a sliding window, with YaRN, in dual chunks, and with both as Qwen2 does beyond
32,768 tokens. What is found with no key in the text is guessed. A quarter of an hour on one core.
"""

import json
from dataclasses import replace

from chapter import NOTEBOOKS
from real_model import real_model

from qwen2_book.config import RopeScaling
from qwen2_book.dual_chunk import with_dual_chunk
from qwen2_book.passkey import digits_found, hidden_key
from qwen2_book.rope import RotaryEmbedding

KEYS = {512: 3, 1024: 2}  # for each length, how many keys are tried
DEPTHS = (0.1, 0.5, 0.9)
WINDOW, SINKS, CHUNK, LOCAL = 256, 4, 384, 32


def measure(file) -> None:
    model, tokenizer = real_model()
    plain = model.model.rotary
    yarn = RotaryEmbedding(replace(model.config, rope_scaling=RopeScaling(4.0, 32_768)))
    chunked = with_dual_chunk(model, CHUNK, LOCAL)
    ways = {
        "as trained": (model, plain),
        f"window of {WINDOW}, {SINKS} sinks": (model.with_window(WINDOW, SINKS), plain),
        "YaRN, factor 4": (model, yarn),
        f"dual chunks {CHUNK}, {LOCAL}": (chunked, plain),
        "YaRN and dual chunks": (chunked, yarn),
    }
    found = {name: [[0] * len(DEPTHS) for _ in KEYS] for name in ways}
    guessed = [0] * len(KEYS)
    for seed in range(max(KEYS.values())):
        for at, (length, keys) in enumerate(KEYS.items()):
            if seed >= keys:
                continue
            guessed[at] += digits_found(model, *hidden_key(tokenizer, length, None, seed))
            for name, (way, model.model.rotary) in ways.items():
                for column, depth in enumerate(DEPTHS):
                    prompt = hidden_key(tokenizer, length, depth, seed)
                    found[name][at][column] += digits_found(way, *prompt)
            model.model.rotary = plain
            print(seed, length, guessed, found, flush=True)
    stored: dict = {"lengths": list(KEYS), "keys": list(KEYS.values()), "depths": DEPTHS}
    stored |= {"digits_guessed": guessed, "digits_found": found}
    file.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    measure(NOTEBOOKS / "data" / "13_passkey.json")
