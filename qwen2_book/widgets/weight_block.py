"""What a block of 32 weights becomes in a file: the grid of values, the scale, the error."""

import base64
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import traitlets

from qwen2_book.checkpoint import blocks
from qwen2_book.widgets.base import Figure, source

STORED = Path(__file__).with_name("weight_block.json")  # written by tools/weight_rows.py
LENGTH, BLOCK = 768, 32  # weights of a stored row: three super-blocks, 24 blocks
KINDS = ["BF16", "Q8_0", "Q6_K", "Q5_0", "Q4_1", "Q4_0", "Q4_K"]


def stored() -> dict[str, Any]:
    """Rows of a real checkpoint; `source` names it."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


def pack(values: np.ndarray) -> str:
    """Numbers as little-endian float32 in base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """What `pack` was given."""
    return np.frombuffer(base64.b64decode(text), "<f4")


class WeightBlock(Figure):
    """A block of a real row of weights, before and after a type.

    row: which of the stored ones. kind: the type. block: 0 to 23. stretch: the largest weight of
    the block times so many tenths, to see what an outlier does to its neighbours.
    """

    MODULE: ClassVar[str] = "weight_block"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "block": (0, LENGTH // BLOCK - 1),
        "stretch": (10, 80),
    }

    _esm = source("weight_block")
    data = traitlets.Dict().tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    kind = traitlets.Enum(KINDS, "Q4_0").tag(sync=True)
    block = traitlets.Int(4).tag(sync=True)
    stretch = traitlets.Int(10).tag(sync=True)
    sizes: traitlets.List = traitlets.List().tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        sizes = [[kind, blocks.bits(kind)] for kind in KINDS]
        rows = {"row": (0, len(data["rows"]) - 1)}
        super().__init__(own_limits=rows, data=data, sizes=sizes, **state)

    def weights(self) -> np.ndarray:
        """The row, with the largest weight of the block stretched."""
        weights = unpack(self.data["rows"][self.row]["weights"]).copy()
        own = weights[self.block * BLOCK :][:BLOCK]
        own[np.abs(own).argmax()] *= np.float32(self.stretch / 10)
        return weights

    def errors(self) -> np.ndarray:
        """Of each block of the row: the error's root mean square over that of the weights."""
        weights = self.weights()
        wrong = (blocks.rounded(weights[None], self.kind)[0] - weights).reshape(-1, BLOCK)
        size = np.mean(weights.reshape(-1, BLOCK).astype(float) ** 2, axis=1)
        return np.sqrt(np.mean(wrong.astype(float) ** 2, axis=1) / size)

    def lost(self) -> int:
        """How many weights of the block became zero."""
        after = blocks.rounded(self.weights()[None], self.kind)[0]
        return int((after[self.block * BLOCK :][:BLOCK] == 0).sum())

    def description(self) -> str:
        about = self.data["rows"][self.row]
        return (
            f"The 32 weights of block {self.block} of a real row ({about['name']}) as circles, and "
            f"the values that {self.kind} keeps as dots on a grid. {self.kind} takes "
            f"{blocks.bits(self.kind):g} bits a weight; the error is "
            f"{self.errors()[self.block]:.1%} of the weights, and {self.lost()} of them became "
            "zero. Below, the error of every block of the row."
        )
