"""A window laid over real heads: what each of them would lose."""

import math
from typing import Any, ClassVar

import numpy as np
import traitlets

from qwen2_book.widgets import head_data
from qwen2_book.widgets.base import Figure, source


class HeadWindow(Figure):
    """Every head of a real model under a sliding window, on stored prompts.

    On the left the attention map of one head (for the heads whose map is kept), with the edge of
    the window; on the right all heads, darker the more of their attention the window keeps.

    window: keys that a query sees, its own included. sinks: first tokens that stay visible.
    prompt: which of the prompts. layer, head: the head that is shown large.
    """

    MODULE: ClassVar[str] = "head_window"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"window": (1, head_data.LONGEST)}

    _esm = source("head_window")
    data = traitlets.Dict().tag(sync=True)
    window = traitlets.Int(16).tag(sync=True)
    sinks = traitlets.Enum(list(head_data.SINKS), 0).tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(8).tag(sync=True)
    head = traitlets.Int(7).tag(sync=True)

    def __init__(self, **state: Any) -> None:
        data = head_data.stored()
        longest = max(len(prompt["tokens"]) for prompt in data["prompts"])
        ends = {"layer": data["layers"] - 1, "head": data["heads"] - 1}
        ends["prompt"] = len(data["prompts"]) - 1
        bounds = {key: (0, end) for key, end in ends.items()} | {"window": (1, longest)}
        super().__init__(own_limits=bounds, data=data, **state)

    def all_kept(self) -> np.ndarray:
        """The share of attention that the window keeps, for every head: (layers, heads)."""
        prompt = self.data["prompts"][self.prompt]
        steps = np.frombuffer(head_data.unpack(prompt["kept"]), "<i2")
        shape = (len(head_data.SINKS), self.data["layers"], self.data["heads"], -1)
        curves = steps.reshape(shape)[head_data.SINKS.index(self.sinks)].cumsum(-1) / 1000
        return curves[..., min(self.window, curves.shape[-1]) - 1]

    def kept(self) -> float:
        """The same for the chosen head."""
        return float(self.all_kept()[self.layer, self.head])

    def fitting(self) -> int:
        """How many heads keep more than 90%."""
        return int((self.all_kept() > 0.9).sum())

    def description(self) -> str:
        share = math.floor(1000 * self.kept() + 0.5) / 10
        return (
            f"Left, the attention map of layer {self.layer}, head {self.head}, with the edge of a "
            f"window of {self.window} tokens, which keeps {share}% of it; right, a grid of all "
            f"{self.data['layers'] * self.data['heads']} heads, darker the more the window keeps: "
            f"{self.fitting()} keep over 90%."
        )
