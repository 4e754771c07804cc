"""The parity ladder on a real model: a planted bug, a tolerance, the first tensor that differs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from qwen2_book.widgets.base import Figure, source

STORED = Path(__file__).with_name("parity_ladder.json")  # written by tools/parity_bugs.py

#: The tensors of a layer that the figure shows, in the order of the run.
PARTS = (
    ".input_layernorm",
    ".self_attn.q_proj",
    ".self_attn.k_proj",
    ".self_attn.v_proj",
    ".self_attn.o_proj, input",
    ".self_attn.o_proj",
    ".post_attention_layernorm, input",
    ".post_attention_layernorm",
    ".mlp.gate_proj",
    ".mlp.up_proj",
    ".mlp.down_proj, input",
    ".mlp.down_proj",
    "",
)
LOW, STEPS, FIRST = -8.0, 800, 35  # smallest logarithm, steps a decade, first character code


def pack(distances: Sequence[float]) -> str:
    """Distances as two characters each: their logarithm in steps of 1/800; below 1e-8 is zero."""
    logs = [math.log10(max(each, 1e-99)) for each in distances]
    steps = [min(max(round((log - LOW) * STEPS), 0), 8099) for log in logs]
    # 90 characters from "#" on; "]" to "~" move up by one, so that no backslash is among them
    return "".join(_letter(part) for step in steps for part in divmod(step, 90))


def _letter(number: int) -> str:
    code = FIRST + number
    return chr(code + (code >= 92))


def unpack(text: str) -> list[float]:
    """What `pack` was given, to three digits."""
    numbers = [ord(letter) - FIRST - (ord(letter) > 92) for letter in text]
    steps = [90 * high + low for high, low in zip(numbers[::2], numbers[1::2], strict=True)]
    return [10 ** (LOW + step / STEPS) if step else 0.0 for step in steps]


def stored() -> dict[str, Any]:
    """Eight changes in four layers each; `source` names the checkpoint."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


class ParityLadder(Figure):
    """Left, how far the stream is off after each layer; right, the tensors of one layer.

    bug: which of the stored changes. at: in which of the layers it is planted, by its place in the
    list. tolerance: tenths of a power of ten; what is further off counts as different. look: the
    layer whose tensors are shown.
    """

    MODULE: ClassVar[str] = "parity_ladder"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"tolerance": (-75, 0)}

    _esm = source("parity_ladder")
    data = traitlets.Dict().tag(sync=True)
    parts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    bug = traitlets.Int(0).tag(sync=True)
    at = traitlets.Int(1).tag(sync=True)
    tolerance = traitlets.Int(-40).tag(sync=True)
    look = traitlets.Int(13).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        ends = {
            "bug": len(data["order"]) - 1,
            "at": len(data["planted"]) - 1,
            "look": data["layers"] - 1,
        }
        bounds = {key: (0, end) for key, end in ends.items()}
        super().__init__(own_limits=bounds, data=data, parts=list(PARTS), **state)

    def run(self) -> dict[str, Any]:
        """The stored run of the chosen bug and layer."""
        name = self.data["order"][self.bug]
        run: dict[str, Any] = self.data["runs"][f"{name}, {self.data['planted'][self.at]}"]
        return run

    def distances(self) -> dict[str, float]:
        """Every tensor of the run with its distance; before the planted layer all are equal."""
        layers = range(self.data["layers"])
        names = [f"model.layers.{layer}{part}" for layer in layers for part in PARTS]
        names += ["model.norm", "logits"]
        found = unpack(self.run()["distances"])
        return dict(zip(names, [0.0] * (len(names) - len(found)) + found, strict=True))

    def first(self) -> tuple[str, float] | None:
        """The first tensor beyond the tolerance, and its distance."""
        limit = 10 ** (self.tolerance / 10)
        found = self.distances().items()
        return next(((name, off) for name, off in found if off > limit), None)

    def description(self) -> str:
        name, run = self.data["order"][self.bug], self.run()
        where = self.first()
        said = (
            f"The first tensor further off is {where[0]}" if where else "No tensor is further off"
        )
        return (
            f"Left, the distance of the residual stream after each layer from that of the sound "
            f"model, on a logarithmic axis, with “{name}” planted in layer "
            f"{self.data['planted'][self.at]}, and the tolerance as a line. Right, the tensors of "
            f"layer {self.look} as bars. {said} than 10^{self.tolerance / 10:g}. The likeliest "
            f"token differs at {run['changed']} of {self.data['tokens']} positions; perplexity "
            f"{run['perplexity']:.2f}, that of the sound model {self.data['perplexity']:.2f}."
        )
