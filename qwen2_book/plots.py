"""Static figures: charts in the book's look, and what attention looks at under a window."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qwen2_book.style import ORANGE, style
from qwen2_book.trace import Trace


class QuietFigure(Figure):
    """A figure that draws a box for a script that no installed font has, without a warning."""

    def draw(self, renderer: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            super().draw(renderer)

    def get_tightbbox(self, *args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            return super().get_tightbbox(*args, **kwargs)


def save_figure(figure: Figure, file: str | Path | io.BytesIO, kind: str) -> None:
    """Write a figure as `svg` or `png`; the text of an SVG stays text, in the viewer's fonts."""
    with style():  # the same drawing is the same file: no date in it
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)


def attention_windows(
    seen: Trace,
    tokens: Sequence[str],
    heads: Sequence[tuple[int, int]],
    window: int | None = None,
    sink_tokens: int = 0,
    columns: int = 4,
) -> Figure:
    """Attention maps of (layer, head) pairs over one prompt, the window drawn as a line.

    Each title tells the share of the head's attention that the window keeps, averaged over the
    rows. `seen` must hold those layers and heads; `tokens` are the labels, one a column.
    """
    columns = min(columns, len(heads))
    lines = -(-len(heads) // columns)
    with style():
        figure, axes = plt.subplots(
            lines,
            columns,
            squeeze=False,
            layout="constrained",
            figsize=(3.1 * columns, 3.3 * lines),
            FigureClass=QuietFigure,
        )
        for axis in axes.flat[len(heads) :]:
            axis.set_visible(False)
        for axis, (layer, head) in zip(axes.flat, heads, strict=False):
            _map(axis, seen, layer, head, window, sink_tokens)
        _label(list(axes[:, 0]), list(axes[-1]), tokens, seen.rows)
    return figure


def _map(
    axis: Axes, seen: Trace, layer: int, head: int, window: int | None, sink_tokens: int
) -> None:
    which = seen.heads.index(head)
    weights = seen.attention[layer][0, which].cpu().numpy()
    rows, keys = weights.shape
    axis.imshow(np.sqrt(weights), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    title = f"layer {layer}, head {head}"
    if window is not None:
        kept = float(seen.mass_in_window(layer, window, sink_tokens)[0, which].mean())
        title += f": {kept:.0%} inside"
        inside = np.zeros((rows, keys), dtype=bool)
        for line, row in enumerate(seen.rows):
            inside[line, max(0, row - window + 1) : row + 1] = True
            inside[line, : min(sink_tokens, row + 1)] = True
        shade = np.zeros((rows, keys, 4))
        shade[~inside & (np.arange(keys)[None] <= np.array(seen.rows)[:, None])] = (0, 0, 0, 0.16)
        axis.imshow(shade, aspect="auto")
        edge = np.repeat(np.maximum(np.array(seen.rows) - window + 1, 0), 2) - 0.5
        down = np.repeat(np.arange(rows + 1), 2)[1:-1] - 0.5
        axis.plot(edge, down, color=ORANGE, linewidth=1.4)
        if sink_tokens:
            axis.plot([min(sink_tokens, keys) - 0.5] * 2, [-0.5, rows - 0.5], color=ORANGE, ls=":")
        axis.set(xlim=(-0.5, keys - 0.5), ylim=(rows - 0.5, -0.5))
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def _label(left: Sequence[Axes], bottom: Sequence[Axes], tokens: Sequence[str], rows: list) -> None:
    labels = [token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") for token in tokens]
    size = 7 if len(labels) <= 32 else 5
    if len(labels) > 64:
        return
    for axis in left:
        axis.set_yticks(range(len(rows)), [labels[row] for row in rows], fontsize=size)
    for axis in bottom:
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)


@contextmanager
def chart(
    width: float = 6.2, height: float = 2.9, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[Any]:
    """One chart, or a grid of them, in the book's look, shown at the end: `with chart() as axis:`.

    `width` and `height` are inches of the whole figure. A grid gives an array of axes.
    """
    with style():
        _, axes = plt.subplots(
            rows,
            columns,
            figsize=(width, height),
            layout="constrained",
            FigureClass=QuietFigure,
            **options,
        )
        yield axes
        for axis in np.ravel(axes):
            for side in (axis.xaxis, axis.yaxis):
                if side.get_scale() == "log":  # 1,000 and not a formula
                    side.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}")
        plt.show()


def name_line(axis: Axes, line: Line2D, text: str, at: float = 1.0) -> None:
    """Write a line's name beside it, in its colour; `at` is where: 0 its first point, 1 its last.

    So the reader's eye needs no legend.
    """
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    place = round(at * (len(x) - 1))
    axis.annotate(
        text,
        (x[place], y[place]),
        xytext=(5, 0) if at == 1 else (0, 5),
        textcoords="offset points",
        color=line.get_color(),
        va="center" if at == 1 else "bottom",
        annotation_clip=False,
    )
