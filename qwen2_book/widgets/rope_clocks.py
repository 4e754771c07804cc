"""The clocks of rotary positions: one hand for the query, one for the key, in every pair."""

import math
from typing import ClassVar

import traitlets

from qwen2_book.widgets.base import Figure, source


class RopeClocks(Figure):
    """Thirty-two clocks, one for each pair of a head of 64 dimensions, and the score by distance.

    Query and key are the same vector, of equal length in every pair, so a pair's share of their
    score is the cosine of the angle between its two hands.

    key_position: where the key stands, in tokens; the query stands `distance` after it.
    pair: the clock that is shown large. base: the rotary base, theta.
    """

    MODULE: ClassVar[str] = "rope_clocks"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "key_position": (0, 4096),
        "distance": (0, 128),
        "pair": (0, 31),
    }

    _esm = source("rope_clocks")
    key_position = traitlets.Int(20).tag(sync=True)
    distance = traitlets.Int(6).tag(sync=True)
    pair = traitlets.Int(4).tag(sync=True)
    base = traitlets.Enum([10_000, 1_000_000], 1_000_000).tag(sync=True)

    def angle(self, pair: int | None = None) -> float:
        """Radians between the two hands of a pair: distance times theta^(-2 pair / 64)."""
        return self.distance * self.base ** (-2 * (self.pair if pair is None else pair) / 64)

    def score(self) -> float:
        """The cosine between the turned query and the turned key: the mean over all pairs."""
        return sum(math.cos(self.angle(pair)) for pair in range(32)) / 32

    def description(self) -> str:
        return (
            f"Thirty-two clocks, one a pair of dimensions, each with a hand for the query at "
            f"position {self.key_position + self.distance} and one for the key at position "
            f"{self.key_position}; the first clocks turn fast, the last hardly move. "
            f"Beside them the score by distance, base {self.base:,}: {self.score():.3f} "
            f"at distance {self.distance}."
        )
