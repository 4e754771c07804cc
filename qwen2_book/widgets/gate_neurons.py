"""Neurons of a real model over a text: what the gate lets through, and a threshold on it."""

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import traitlets

from qwen2_book.widgets.base import Figure, source

STORED = Path(__file__).with_name("gate_neurons.json")  # written by tools/gate_neurons.py


def stored() -> dict[str, Any]:
    """A dozen neurons over a text in English, Chinese and Python; `source` names the checkpoint."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


def pack(values: np.ndarray) -> str:
    """Numbers in hundredths as little-endian int16, deflated, in base64."""
    raw = np.round(values * 100).clip(-32_768, 32_767).astype("<i2").tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def unpack(text: str, rows: int) -> np.ndarray:
    """What `pack` was given, rounded: (rows, tokens)."""
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i2")
    return numbers.reshape(rows, -1) / 100


class GateNeurons(Figure):
    """Tokens coloured by a neuron's gate, its up value, or the product that it hands on.

    neuron: which of the stored ones. show: "gate", "up" or "product". passage: which part of the
    text is drawn. threshold: 0 to 100, from the smallest value in the text to the largest; tokens
    above it are outlined, and compared with the neuron's label over the whole text.
    """

    MODULE: ClassVar[str] = "gate_neurons"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"threshold": (0, 100)}

    _esm = source("gate_neurons")
    data = traitlets.Dict().tag(sync=True)
    neuron = traitlets.Int(1).tag(sync=True)
    show = traitlets.Enum(["gate", "up", "product"], "gate").tag(sync=True)
    passage = traitlets.Int(1).tag(sync=True)
    threshold = traitlets.Int(20).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        ends = {"neuron": len(data["neurons"]) - 1, "passage": len(data["passages"]) - 1}
        bounds = {key: (0, end) for key, end in ends.items()}
        super().__init__(own_limits=bounds, data=data, **state)

    def values(self) -> np.ndarray:
        """What the figure shows of the chosen neuron, for every token of the text."""
        rows = len(self.data["neurons"])
        gate, up = (unpack(self.data[part], rows)[self.neuron] for part in ("gates", "ups"))
        product = gate / (1 + np.exp(-gate)) * up
        return {"gate": gate, "up": up, "product": product}[self.show]

    def labelled(self) -> np.ndarray:
        """Which tokens have the neuron's label."""
        marked = np.zeros(sum(len(p["tokens"]) for p in self.data["passages"]), dtype=bool)
        marked[self.data["labels"][self.data["neurons"][self.neuron]["label"]]] = True
        return marked

    def counts(self) -> tuple[int, int, int]:
        """Labelled tokens above the threshold, all tokens above it, all labelled tokens."""
        values, marked = self.values(), self.labelled()
        low, high = float(values.min()), float(values.max())
        above = values > low + (high - low) * self.threshold / 100
        return int((above & marked).sum()), int(above.sum()), int(marked.sum())

    def precision(self) -> float:
        """The share of the outlined tokens that have the label."""
        found, above, _ = self.counts()
        return found / above if above else 0.0

    def recall(self) -> float:
        """The share of the labelled tokens that are outlined."""
        found, _, marked = self.counts()
        return found / marked

    def description(self) -> str:
        which = self.data["neurons"][self.neuron]
        found, above, marked = self.counts()
        return (
            f"A text whose tokens are coloured by the {self.show} of neuron {which['neuron']} in "
            f"layer {which['layer']}, and below it all tokens on a line, those labelled "
            f"{which['label']} apart from the others. {above} tokens lie above the threshold, "
            f"{found} of them among the {marked} labelled ones."
        )


def passages(tokens: Sequence[str], starts: Sequence[int], names: Sequence[str]) -> list[dict]:
    """The text cut at token numbers, each part with its name."""
    ends = [*starts[1:], len(tokens)]
    return [
        {"name": name, "tokens": list(tokens[start:end])}
        for name, start, end in zip(names, starts, ends, strict=True)
    ]
