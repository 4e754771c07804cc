"""Preference losses over the margin: how large, and how hard they still push."""

import math
from typing import Any, ClassVar

import traitlets

from qwen2_book.widgets.base import Figure, source

BETAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
KINDS = {"sigmoid": "DPO", "smoothed": "smoothed, ε = 0.1", "hinge": "hinge", "ipo": "IPO"}
EPSILON = 0.1  # share of pairs that the smoothed loss takes for mislabelled


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


def loss(kind: str, beta: float, h: float) -> float:
    """A pair's loss at margin h, in nats ("hinge" and "ipo" have units of their own).

    "ipo" is (h - 1/2β)² on sums, as in the paper; the package, like TRL, takes it per token.
    """
    if kind == "hinge":
        return max(0.0, 1 - beta * h)
    if kind == "ipo":
        return (h - 1 / (2 * beta)) ** 2
    wrong = EPSILON if kind == "smoothed" else 0.0
    return -(1 - wrong) * _log_sigmoid(beta * h) - wrong * _log_sigmoid(-beta * h)


def push(kind: str, beta: float, h: float) -> float:
    """Minus the loss's slope: how hard a step widens the margin; below 0 it narrows it."""
    if kind == "hinge":
        return beta if beta * h < 1 else 0.0
    if kind == "ipo":
        return 1 / beta - 2 * h
    wrong = EPSILON if kind == "smoothed" else 0.0
    return beta * (math.exp(_log_sigmoid(-beta * h)) - wrong)


class DpoMargin(Figure):
    """Loss and push of four preference losses, both as multiples of what they are at margin 0.

    half_nats: the margin h, in halves of a nat. beta: index into `BETAS`. kind: which of `KINDS`.
    """

    MODULE: ClassVar[str] = "dpo_margin"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"half_nats": (-80, 80), "beta": (0, 6)}

    _esm = source("dpo_margin")
    half_nats = traitlets.Int(24).tag(sync=True)
    beta = traitlets.Int(3).tag(sync=True)
    kind = traitlets.Enum(list(KINDS), "sigmoid").tag(sync=True)
    betas: traitlets.List[Any] = traitlets.List(list(BETAS)).tag(sync=True)
    names = traitlets.Dict(dict(KINDS)).tag(sync=True)
    epsilon = traitlets.Float(EPSILON).tag(sync=True)

    def values(self) -> tuple[float, float, float]:
        """Loss, push, and the push as a share of that at margin 0."""
        beta, h = BETAS[self.beta], self.half_nats / 2
        here = push(self.kind, beta, h)
        return loss(self.kind, beta, h), here, here / push(self.kind, beta, 0.0)

    def description(self) -> str:
        found, here, share = self.values()
        return (
            f"Left, the loss of a pair against the margin h from −40 to 40 nats, right the push on "
            f"the margin, for DPO, the smoothed form, hinge and IPO; β is {BETAS[self.beta]:g}. "
            f"{KINDS[self.kind]} at h = {self.half_nats / 2:.1f}: loss {found:.3f}, push "
            f"{here:.4f} a nat, {100 * share:.0f}% of the push at h = 0."
        )
