"""The pass-key test: a number is hidden in a long dull text, and asked for at its end."""

import random

import torch

from qwen2_book.model import Qwen2
from qwen2_book.tokenizer import Tokenizer

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


def hidden_key(
    tokenizer: Tokenizer, length: int, depth: float | None, seed: int
) -> tuple[list[int], int]:
    """A prompt of at most `length` tokens with a five-digit key at `depth`.

    Depth 0 puts the key before the filler, 1 behind it, None nowhere: what is found then is
    guessed. Sentences stay whole. Key and filler follow from the seed alone. The prompt ends with
    the question and the key itself; returns the ids, and how many of them, at the end, are the
    key's. ValueError where the length leaves no room for filler.
    """
    chooser = random.Random(seed)
    key = "".join(chooser.choice("123456789") for _ in range(5))
    needle = tokenizer.encode(f" The pass key is {key}. Remember it: {key} is the pass key.")
    question = tokenizer.encode("\nWhat is the pass key? The pass key is ")
    digits = tokenizer.encode(key)
    room = length - len(needle) - len(question) - len(digits)
    hay: list[list[int]] = []
    while len(sentence := tokenizer.encode(" " + chooser.choice(FILLER))) <= room:
        hay.append(sentence)
        room -= len(sentence)
    if not hay or not 0 <= (depth or 0) <= 1:
        raise ValueError(
            f"length {length}, depth {depth}: expected room for a sentence beside key and "
            "question, and a depth from 0 (the key stands first) to 1 (last)."
        )
    if depth is not None:
        hay.insert(round(depth * len(hay)), needle)
    return [token for part in (*hay, question, digits) for token in part], len(digits)


@torch.no_grad()
def digits_found(model: Qwen2, ids: list[int], digits: int) -> int:
    """How many of the last `digits` tokens are the most likely one after those before them."""
    prompt = torch.tensor([ids], device=model.device)
    positions, masks = model.positions_and_masks(prompt, None, None)
    states = model.hidden_states(prompt, positions, masks)[0, -digits - 1 : -1]
    return int((model.lm_head(states).argmax(-1) == prompt[0, -digits:]).sum())
