"""The residual stream of a real prompt: how long it is, and what each block adds to it."""

import statistics
from typing import Any, ClassVar

import traitlets

from qwen2_book.widgets import stream_data
from qwen2_book.widgets.base import Figure, source


class ResidualStream(Figure):
    """Left, the length of every token's vector by block; right, what one block adds to one token.

    block: how many blocks the token has passed; 0 is the embedding, and after `block` of them the
    last one was layer `block - 1`. token: which token of the prompt. prompt: which
    of the prompts.
    """

    MODULE: ClassVar[str] = "residual_stream"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {}

    _esm = source("residual_stream")
    data = traitlets.Dict().tag(sync=True)
    block = traitlets.Int(4).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stream_data.stored()
        prompts = data["prompts"]
        bounds = {
            "block": (0, data["blocks"]),
            "token": (0, min(len(prompt["tokens"]) for prompt in prompts) - 1),
            "prompt": (0, len(prompts) - 1),
        }
        super().__init__(own_limits=bounds, data=data, **state)

    def _of(self, what: str) -> Any:
        return self.data["prompts"][self.prompt][what][self.token]

    def length(self) -> float:
        """The stream's length after the block."""
        return float(self._of("norms")[2 * self.block])

    def others(self) -> float:
        """The median length of the other tokens after the block."""
        rows = self.data["prompts"][self.prompt]["norms"]
        return statistics.median(
            row[2 * self.block] for token, row in enumerate(rows) if token != self.token
        )

    def added(self) -> tuple[tuple[float, float], ...]:
        """(length, cosine with the stream) of what attention and the feed-forward layer add."""
        at = range(2 * self.block - 2, 2 * self.block) if self.block else ()
        return tuple((self._of("added")[i], self._of("cosines")[i]) for i in at)

    def largest(self) -> list[tuple[int, float]]:
        """The three largest numbers of the stream after the block: (dimension, value)."""
        return list(zip(self._of("dims")[self.block], self._of("values")[self.block], strict=True))

    def description(self) -> str:
        dimension, value = self.largest()[0]
        word = self.data["prompts"][self.prompt]["tokens"][self.token].strip()
        return (
            f"Left, the length of each token's vector against the blocks passed, on a logarithmic "
            f"axis: one line a token, that of token {self.token} “{word}” drawn thick. Right, what "
            f"the last of {self.block} blocks added to it. Its length is {self.length():.4g}, that "
            f"of the others {self.others():.4g} in the median; its largest number is {value:.4g}, "
            f"in dimension {dimension}."
        )
