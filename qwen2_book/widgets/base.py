"""What all interactive figures share: their module, style, limits, and what is stored of them."""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from qwen2_book.style import css_variables

HERE = Path(__file__).parent
STYLE = css_variables() + (HERE / "figure.css").read_text(encoding="utf-8")


def names() -> list[str]:
    """The figures there are, by the name of their module."""
    return sorted(file.stem for file in HERE.glob("*.js") if file.stem != "kit")


def source(name: str) -> str:
    """The ES module of a figure, complete: the shared kit, then its own file."""
    files = (HERE / "kit.js", HERE / f"{name}.js")
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


class Figure(anywidget.AnyWidget):
    """An interactive figure. A subclass names its module, its state with limits, and a description.

    Integers of the state stay inside `LIMITS`: a value outside is moved to the nearest limit, and
    `note`, which the figure shows, says so. The static picture is `<module>.svg` beside the module,
    drawn by the module itself in its first state (`tools/pictures.py`).
    """

    MODULE: ClassVar[str]
    LIMITS: ClassVar[dict[str, tuple[int, int]]]

    _css = STYLE
    limits = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)

    def __init__(self, own_limits: dict[str, tuple[int, int]] | None = None, **state: Any) -> None:
        """own_limits: those that depend on this figure's data, beside or instead of `LIMITS`."""
        bounds = self.LIMITS | (own_limits or {})
        notes = []
        for key, (low, high) in bounds.items():
            value = state.get(key, self.traits()[key].default_value)
            try:
                kept = min(max(round(float(value)), low), high)
            except (TypeError, ValueError, OverflowError):  # no number, or not a finite one
                kept = self.traits()[key].default_value
            if kept != value:
                notes.append(f"{key} {str(value)[:20]} is outside {low} to {high}: showing {kept}")
            state[key] = kept
        limits = {key: list(pair) for key, pair in bounds.items()}
        super().__init__(**state, limits=limits, note="; ".join(notes))

    def description(self) -> str:
        """What the figure shows in its present state, for those who do not see it."""
        raise TypeError(f"{type(self).__name__} has no description()")

    def state(self) -> dict[str, Any]:
        """What the module needs to draw: every synchronised trait of the figure's own."""
        own = (name for name in self.traits(sync=True) if not name.startswith("_"))
        known = set(anywidget.AnyWidget.class_traits())
        return {name: getattr(self, name) for name in sorted(own) if name not in known}

    def as_html(self) -> str:
        """The place for the website's host script, around the static picture."""
        picture = (HERE / f"{self.MODULE}.svg").read_bytes()
        state = html.escape(json.dumps(self.state(), ensure_ascii=True, sort_keys=True))
        return (
            f'<div class="q2b-figure" data-figure="{self.MODULE}" data-state="{state}">'
            f'<img alt="{html.escape(self.description())}" '
            f'src="data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"></div>'
        )

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        found = super()._repr_mimebundle_(**options)
        data, metadata = found if isinstance(found, tuple) else (found or {}, {})
        text = re.sub(r"\s+", " ", self.description())
        return {**data, "text/html": self.as_html(), "text/plain": text}, metadata
