"""A small mixture of experts at work: which experts each token of a sentence goes to."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import traitlets

from qwen2_book.widgets.base import Figure, source

STORED = Path(__file__).with_name("router_flow.json")  # written by tools/router_data.py


def stored() -> dict[str, Any]:
    """Router probabilities of a trained mixture for a few sentences, for each top-k."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


def pack(values: np.ndarray) -> str:
    """Numbers in thousandths as little-endian int16, deflated, in base64."""
    raw = np.round(values * 1000).astype("<i2").tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def unpack(text: str, *shape: int) -> np.ndarray:
    """What `pack` was given, rounded."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i2").reshape(shape) / 1000


class RouterFlow(Figure):
    """A sentence's tokens flowing to the experts of one layer, and one token through all layers.

    top_k: how many experts a token is sent to; the model is run with that number. layer and token:
    which ones are drawn; a token beyond the sentence is its last. sentence: which of the stored.
    """

    MODULE: ClassVar[str] = "router_flow"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {}

    _esm = source("router_flow")
    data = traitlets.Dict().tag(sync=True)
    top_k = traitlets.Int(2).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    token = traitlets.Int(4).tag(sync=True)
    sentence = traitlets.Int(0).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        longest = max(len(each["tokens"]) for each in data["sentences"])
        bounds = {
            "top_k": (1, len(data["losses"])),
            "layer": (0, data["layers"] - 1),
            "token": (0, longest - 1),
            "sentence": (0, len(data["sentences"]) - 1),
        }
        super().__init__(own_limits=bounds, data=data, **state)

    def _part(self, name: str, *rest: int) -> np.ndarray:
        sizes = [len(each["tokens"]) for each in self.data["sentences"]]
        whole = unpack(
            self.data[name], len(self.data["losses"]), self.data["layers"], sum(sizes), *rest
        )
        first = sum(sizes[: self.sentence])
        return whole[self.top_k - 1, :, first : first + sizes[self.sentence]]

    def probabilities(self) -> np.ndarray:
        """(layers, tokens, experts) of the sentence: the softmax over all routed experts."""
        return self._part("probabilities", self.data["experts"])

    def shared(self) -> np.ndarray:
        """(layers, tokens): the sigmoid gate of the shared expert."""
        return self._part("shared")

    def chosen(self) -> np.ndarray:
        """(layers, tokens, top_k): the experts, the most likely first."""
        return np.argsort(-self.probabilities(), axis=-1, kind="stable")[..., : self.top_k]

    def loads(self) -> np.ndarray:
        """How many tokens of the sentence each expert of the layer gets."""
        return np.bincount(self.chosen()[self.layer].ravel(), minlength=self.data["experts"])

    def description(self) -> str:
        tokens = self.data["sentences"][self.sentence]["tokens"]
        at = min(self.token, len(tokens) - 1)
        experts = ", ".join(map(str, self.chosen()[self.layer, at]))
        loads = self.loads()
        return (
            f"The {len(tokens)} tokens of a sentence on the left, the {len(loads)} experts of "
            f"layer {self.layer} on the right, joined by lines as thick as the router's weights; "
            f"token {tokens[at].strip()} goes to {experts}. The busiest expert gets {loads.max()} "
            f"of {loads.sum()} choices. Beside it, that token's probabilities in every layer."
        )
