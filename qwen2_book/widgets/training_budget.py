"""A budget of operations, spent on a larger model or on more tokens."""

import json
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from qwen2_book.training.scaling import Law
from qwen2_book.widgets.base import Figure, source

STORED = Path(__file__).with_name("training_budget.json")  # by tools/pretraining_runs.py
STEP = 50  # steps of a slider in a factor of ten


def stored() -> dict[str, Any]:
    """For each world: its law, where its sliders begin, and the models to mark."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


def short(number: float | int) -> str:
    """Three digits and a letter: 12.2T, 494M, 65.5K."""
    letters = ["", "K", "M", "B", "T", "P"]
    power = 0
    while number >= 999.5 and power < len(letters) - 1:
        number, power = number / 1000, power + 1
    return f"{number:#.3g}".rstrip(".") + letters[power]


class TrainingBudget(Figure):
    """What a law says of a training budget: loss over the model's size, and models on a map.

    world: "web" (the law fitted to the runs of Hoffmann et al.) or "little" (this book's own runs).
    compute and size: the sliders, in fiftieths of a factor of ten above where the world begins.
    """

    MODULE: ClassVar[str] = "training_budget"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"compute": (0, 200), "size": (0, 200)}

    _esm = source("training_budget")
    data = traitlets.Dict().tag(sync=True)
    world = traitlets.Unicode("web").tag(sync=True)
    compute = traitlets.Int(124).tag(sync=True)
    size = traitlets.Int(92).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        if state.get("world", "web") not in data["worlds"]:
            raise ValueError(f"found world {state['world']!r}, expected one of {[*data['worlds']]}")
        super().__init__(data=data, **state)

    @property
    def law(self) -> Law:
        """The law of the chosen world."""
        return Law(**self.data["worlds"][self.world]["law"])

    def choice(self) -> tuple[float, float, float]:
        """(operations, N, D) where the sliders stand."""
        first = self.data["worlds"][self.world]
        operations = 10 ** (first["compute"] + self.compute / STEP)
        size = 10 ** (first["size"] + self.size / STEP)
        return operations, size, operations / (6 * size)

    def description(self) -> str:
        operations, size, tokens = self.choice()
        best = self.law.best_size(operations)
        return (
            f"Left: loss over the model's size for a training of {operations:.1e} operations, a "
            f"valley with its lowest point at {short(best)} weights; the chosen model has "
            f"{short(size)} weights and sees {short(tokens)} tokens, {short(tokens / size)} a "
            f"weight, for a loss of {self.law.loss(size, tokens):.2f} nats. Right: sizes and "
            "tokens of known models, with the line of the best sizes; they lie above it."
        )
