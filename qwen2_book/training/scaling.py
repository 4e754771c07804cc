"""A scaling law: what loss a model of some size reaches with some number of tokens."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

EXPONENTS = np.arange(0.04, 3, 0.02)  # where `fit_law` looks


@dataclass(frozen=True)
class Law:
    """loss = floor + a / N^alpha + b / D^beta, in nats a token (arXiv:2203.15556, equation 2).

    N counts the weights in the matrices that a token passes, D the tokens of training; a run costs
    6 N D operations. `floor` is what no model of the kind gets below, however large and long.
    """

    floor: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, size: float | int, tokens: float | int) -> float:
        """The loss of N = `size` and D = `tokens`."""
        return self.floor + self.a * size**-self.alpha + self.b * tokens**-self.beta

    def best_size(self, operations: float | int) -> float:
        """The N with the lowest loss among all that cost this many operations."""
        balance = self.alpha * self.a / (self.beta * self.b)
        both = self.alpha + self.beta
        return balance ** (1 / both) * (operations / 6) ** (self.beta / both)

    def fewest_operations(self, loss: float | int) -> float:
        """What the cheapest run costs that reaches a loss above the floor."""
        size = self.best_size(1.0)
        above = self.loss(size, 1 / (6 * size)) - self.floor  # of a run of one operation
        power = 1 / self.alpha + 1 / self.beta
        return float((above / (loss - self.floor)) ** power)


def fit_law(points: Iterable[tuple[float | int, float | int, float]]) -> Law:
    """The law with the least squared error over (N, D, loss) points.

    Once the exponents are chosen, floor, a and b follow from a linear system; so all pairs of
    exponents on a grid are tried. Pairs that would need a negative number are left out.
    """
    size, tokens, loss = np.array(list(points), dtype=float).T
    n0, d0 = np.exp(np.log(size).mean()), np.exp(np.log(tokens).mean())
    best: tuple[float, Law] | None = None
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            parts = np.stack([np.ones_like(loss), (size / n0) ** -alpha, (tokens / d0) ** -beta])
            floor, a, b = np.linalg.solve(parts @ parts.T, parts @ loss)
            error = float(((loss - np.array([floor, a, b]) @ parts) ** 2).sum())
            if min(floor, a, b) > 0 and (best is None or error < best[0]):
                law = Law(floor, a * n0**alpha, b * d0**beta, alpha, beta)
                best = error, Law(*map(float, vars(law).values()))
    if best is None:
        raise ValueError("no law fits: expected losses that fall with size and with tokens.")
    return best[1]
