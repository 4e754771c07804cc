"""The loss of a run as a picture, drawn once, or again and again while it trains."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from qwen2_book.plots import QuietFigure
from qwen2_book.style import BLUE, ORANGE, style
from qwen2_book.training.run_folder import Metrics

SMOOTHED = 20  # steps in the running mean


def training_curve(metrics: Metrics) -> Figure:
    """Loss of each step, its running mean, and the held-out loss where it was measured."""
    steps = [row["step"] for row in metrics]
    losses = [row["loss"] for row in metrics]
    means = [
        sum(losses[max(0, k - SMOOTHED + 1) : k + 1]) / min(k + 1, SMOOTHED)
        for k in range(len(losses))
    ]
    held_out = [(row["step"], row["held_out"]) for row in metrics]
    held_out = [(step, loss) for step, loss in held_out if loss == loss]  # NaN: not measured
    with style():
        figure, axis = plt.subplots(figsize=(6, 3), layout="constrained", FigureClass=QuietFigure)
        axis.plot(steps, losses, linewidth=0.5, alpha=0.4, color=BLUE)
        axis.plot(steps, means, color=BLUE)
        axis.annotate("training", (steps[-1], means[-1]), color=BLUE)
        if held_out:
            axis.plot(*zip(*held_out, strict=True), "o-", color=ORANGE, markersize=3)
            axis.annotate("held out", held_out[-1], color=ORANGE)
        axis.set(xlabel="step", ylabel="loss, nats per token", xlim=(0, steps[-1] * 1.15))
    return figure


class LiveCurve:
    """Redraws the curve in a notebook every `every` steps: `train(…, on_step=LiveCurve())`."""

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self.handle: Any = None

    def __call__(self, metrics: Metrics) -> None:
        if len(metrics) % self.every:
            return
        from IPython.display import display

        figure = training_curve(metrics)
        plt.close(figure)  # or Jupyter would show it a second time
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
