"""The book's one look: colours, fonts and matplotlib settings, and the same colours for the web."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib import font_manager
from matplotlib.colors import to_hex, to_rgb

INK, PAPER, GREY = "#1f2430", "#ffffff", "#6b7280"
BLUE, WINE, ORANGE, TEAL = "#0f56ab", "#641a2e", "#c65100", "#109c80"

#: Lines in the order in which a chart takes them: each has its own lightness and its own dashes,
#: so that they stay apart in grey and for every kind of colour vision (see tests/test_style.py).
SERIES = {"blue": BLUE, "orange": ORANGE, "teal": TEAL, "wine": WINE}
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))

FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Hiragino Sans GB"),
    *("Microsoft YaHei", "WenQuanYi Micro Hei", "Noto Sans", "Noto Sans Thai"),
)

SETTINGS: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=list(SERIES.values())) + cycler(linestyle=DASHES),
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#d8dbe2",
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "figure.dpi": 110,
    "svg.fonttype": "none",  # text stays text: the viewer's own fonts draw every script
    "svg.hashsalt": "qwen2-book",
    "text.parse_math": False,  # a token that holds a dollar sign is no formula
}


@contextmanager
def style() -> Iterator[None]:
    """The book's look for everything drawn inside, in the first of its fonts that are installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = [name for name in FONTS if name in installed]
    settings: Any = SETTINGS | {"font.family": families}
    with matplotlib.rc_context(settings):
        yield


def dark(colour: str) -> str:
    """What dark mode makes of a colour: CSS's `invert(1) hue-rotate(180deg)`.

    Light and dark change places and the hue stays, so one drawing serves both. The matrix is that
    of the Filter Effects specification (W3C, feColorMatrix hueRotate) at 180 degrees.
    """
    red, green, blue = (1 - part for part in to_rgb(colour))
    turned = (
        -0.574 * red + 1.430 * green + 0.144 * blue,
        0.426 * red + 0.430 * green + 0.144 * blue,
        0.426 * red + 1.430 * green - 0.856 * blue,
    )
    return to_hex(tuple(np.clip(turned, 0, 1)))


def css_variables() -> str:
    """The colours as CSS variables `--q2b-…`, for light pages and for dark ones."""
    colours = {"ink": INK, "paper": PAPER, "grey": GREY, **SERIES}
    light = "".join(f"--q2b-{name}:{colour};" for name, colour in colours.items())
    night = "".join(f"--q2b-{name}:{dark(colour)};" for name, colour in colours.items())
    return (
        f".q2b{{{light}}}\n"
        f'html[data-theme="dark"] .q2b,[data-jp-theme-light="false"] .q2b{{{night}}}\n'
    )
