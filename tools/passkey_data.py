"""Store what chapter 13 shows of pass keys: `python tools/passkey_data.py`, on a real checkpoint.

A five-digit key is hidden in filler text, at several depths and lengths; for each digit, given the
digits before it, is the right one the most likely? About 15 minutes on two cores.
"""

import json
import random

import torch
from chapter import NOTEBOOKS
from real_model import real_model, source

from qwen2_book import Qwen2, Tokenizer
from qwen2_book.dual_chunk import with_dual_chunk

LENGTHS, DEPTHS = (512, 1024, 2048, 4096), (0.0, 0.33, 0.67, 1.0)
WINDOW, SINKS, CHUNK, LOCAL = 512, 4, 768, 64
FILLER = (
    "The kettle was put on and the window was opened.",
    "A cart went down the lane towards the mill.",
    "Someone had left a blue coat on the fence.",
    "It rained a little, and then it stopped.",
    "The dog slept under the bench until noon.",
    "Two letters came, and nobody read them at once.",
    "The clock in the hall had been slow for years.",
    "In the garden the beans had begun to climb.",
    "A neighbour asked for a ladder and brought it back.",
    "At dusk the lamps were lit along the quay.",
)


def prompt(tokenizer: Tokenizer, length: int, depth: float, seed: int) -> tuple[list[int], int]:
    """`length` tokens of filler with the key at `depth`, then the question and the key's digits.

    Returns the ids and how many of them, at the end, are the digits.
    """
    chooser = random.Random(seed)
    key = "".join(chooser.choice("123456789") for _ in range(5))
    needle = tokenizer.encode(f" The pass key is {key}. Remember it: {key} is the pass key.")
    question = tokenizer.encode("\nWhat is the pass key? The pass key is ")
    digits = tokenizer.encode(key)
    room = length - len(needle) - len(question) - len(digits)
    hay: list[int] = []
    while len(hay) < room:
        hay += tokenizer.encode(" " + chooser.choice(FILLER))
    cut = round(depth * room)
    return hay[:cut] + needle + hay[cut:room] + question + digits, len(digits)


@torch.no_grad()
def digits_found(model: Qwen2, ids: list[int], digits: int) -> int:
    """How many digits are the most likely token after what stands before them."""
    hidden = torch.tensor([ids])
    positions, masks = model.positions_and_masks(hidden, None, None)
    states = model.hidden_states(hidden, positions, masks)[0, -digits - 1 : -1]
    return int((model.lm_head(states).argmax(-1) == hidden[0, -digits:]).sum())


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
                digits_found(way, *prompt(tokenizer, length, depth, seed))
                for seed, depth in enumerate(DEPTHS)
            ]
            found[name].append(row)
            print(length, name, row, flush=True)
    return {"source": source(), "lengths": LENGTHS, "depths": DEPTHS, "digits_found": found}


if __name__ == "__main__":
    file = NOTEBOOKS / "data" / "13_passkey.json"
    file.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
