"""What preference training does to both answers: a plane of two changes, and stored runs in it."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from qwen2_book.widgets.base import Figure, source

STORED = Path(__file__).with_name("dpo_plane.json")  # written by tools/dpo_plane_data.py
CURVES = ("chosen", "rejected", "accuracy", "right", "formed")
ARMS = ("DPO alone", "DPO + SFT term")


@cache
def stored() -> dict[str, Any]:
    """Runs by arm, beta and seed: the curves of `CURVES`, one number for each looked-at step."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


class DpoPlane(Figure):
    """Log-probability of chosen and rejected answers, as changes since the reference, over a run.

    arm: 0 DPO alone, 1 with the SFT term. beta and seed: which of the stored runs. look: which of
    its measurements; there is one every four steps.
    """

    MODULE: ClassVar[str] = "dpo_plane"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "look": (0, 20),
        "arm": (0, 1),
        "beta": (0, 3),
        "seed": (0, 4),
    }

    _esm = source("dpo_plane")
    look = traitlets.Int(10).tag(sync=True)
    arm = traitlets.Int(0).tag(sync=True)
    beta = traitlets.Int(1).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    arms: traitlets.List[Any] = traitlets.List(list(ARMS)).tag(sync=True)

    def __init__(self, **state: Any) -> None:
        super().__init__(data=stored(), **state)

    def now(self) -> dict[str, float]:
        """The numbers at the step looked at, and the loss of a pair at their mean margin."""
        run = self.data["runs"][self.arm][self.beta][self.seed]
        found = {name: curve[self.look] for name, curve in zip(CURVES, run, strict=True)}
        margin = found["chosen"] - found["rejected"]
        beta = self.data["betas"][self.beta]
        return {
            **found,
            "step": self.data["steps"][self.look],
            "margin": margin,
            "loss": math.log1p(math.exp(-beta * margin)),
        }

    def description(self) -> str:
        now = self.now()
        return (
            f"A plane: to the right the change of the chosen answers' log-probability, upwards "
            f"that of the rejected ones'; lines of equal loss are diagonals. {ARMS[self.arm]}, β "
            f"{self.data['betas'][self.beta]:g}, seed {self.seed}: at step {now['step']:.0f} the "
            f"chosen answers have moved by {now['chosen']:.1f} nats, the rejected by "
            f"{now['rejected']:.1f}; {100 * now['accuracy']:.0f}% of the pairs are ranked right "
            f"and {now['formed']} of 24 greedy answers are well-formed."
        )
