"""Draw rope_layouts.svg: which dimensions of a head turn together, in the two layouts."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Rectangle

from qwen2_book.plots import QuietFigure, save_figure
from qwen2_book.style import DASHES, INK, PAPER, SERIES, style

DIMENSIONS = 8
COLOURS = list(SERIES.values())


def row(axis: Axes, y: float, pairs: list[tuple[int, int]], title: str) -> None:
    """Eight boxes, and an arc for each pair; arcs of one row have heights that keep them apart."""
    axis.text(-0.45, y + (2.45 if pairs[0][1] > 1 else 1.6), title, fontsize=11, va="center")
    for pair, (left, right) in enumerate(pairs):
        colour = COLOURS[pair]
        for dimension in (left, right):
            box = Rectangle((dimension - 0.42, y - 0.42), 0.84, 0.84, facecolor=PAPER)
            box.set(edgecolor=colour, linewidth=2.2)
            axis.add_patch(box)
            axis.text(dimension, y, str(dimension), ha="center", va="center", color=INK)
        height = 1.0 if right - left == 1 else 1.1 + 0.32 * pair
        middle, width = (left + right) / 2, right - left
        arc = Arc((middle, y + 0.42), width, 2 * height * 0.8, theta1=0, theta2=180)
        arc.set(edgecolor=colour, linewidth=1.8, linestyle=DASHES[pair])
        axis.add_patch(arc)
        axis.text(left, y - 0.72, f"pair {pair}", ha="center", color=colour, fontsize=8)


def main() -> None:
    with style():
        figure, axis = plt.subplots(figsize=(6.2, 4.0), FigureClass=QuietFigure)
        half = DIMENSIONS // 2
        row(axis, 4.6, [(i, i + half) for i in range(half)], "half-split: Qwen2's weights")
        row(axis, 0.9, [(2 * i, 2 * i + 1) for i in range(half)], "interleaved: the paper")
        axis.set(xlim=(-0.8, 7.8), ylim=(-0.2, 7.4), aspect="equal")
        axis.axis("off")
        figure.tight_layout(pad=0.2)
    save_figure(figure, Path(__file__).with_suffix(".svg"), "svg")


if __name__ == "__main__":
    main()
