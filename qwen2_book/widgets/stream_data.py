"""What the residual-stream figure draws: lengths and cosines of additions, a few dimensions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

STORED = Path(__file__).with_name("residual_stream.json")  # written by tools/stream_data.py
LONGEST = 16  # tokens of a prompt
LARGEST = 3  # dimensions of the stream that are named


def _short(numbers: Tensor) -> Any:
    """Nested lists with four significant digits."""
    if numbers.ndim:
        return [_short(each) for each in numbers]
    return float(f"{float(numbers):.4g}")


def prompt_data(
    name: str, tokens: Sequence[str], states: Float[Tensor, "states seq hidden"]
) -> dict[str, Any]:
    """One prompt of the figure, from `residual_states(model, ids)[:, 0]`.

    norms: (tokens, states), the stream's length after each addition; added: (tokens, additions),
    the length of what was added; cosines: its cosine with the stream that it was added to;
    dims, values: (tokens, blocks + 1, 3), the stream's largest numbers after each block.
    Raises ValueError for more than `LONGEST` tokens.
    """
    if not len(tokens) == states.shape[1] <= LONGEST:
        raise ValueError(
            f"{len(tokens)} tokens, {states.shape[1]} traced: expected the same, 1 to {LONGEST}"
        )
    added = states.diff(dim=0)
    blocks = states[::2].transpose(0, 1)  # tokens, blocks + 1, hidden
    dims = blocks.abs().topk(LARGEST).indices
    return {
        "name": name,
        "tokens": list(tokens),
        "norms": _short(states.norm(dim=-1).T),
        "added": _short(added.norm(dim=-1).T),
        "cosines": [
            [round(float(c), 3) for c in row]
            for row in cosine_similarity(added, states[:-1], dim=-1).T
        ],
        "dims": dims.tolist(),
        "values": _short(blocks.gather(-1, dims)),
    }


def stored() -> dict[str, Any]:
    """The stored prompts: one English and one Chinese, on the checkpoint that `source` names."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data
