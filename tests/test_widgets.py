"""Interactive figures in Python: limits, what is stored, and the picture that the module draws."""

import html
import json
import math
import re

import pytest
import torch
from pictures import figures, picture

from qwen2_book import Qwen2Config, widgets
from qwen2_book.rope import RotaryEmbedding, rotate
from qwen2_book.widgets import RopeClocks


def test_every_module_has_its_class_and_its_picture():
    assert [kind.MODULE for kind in figures()] == widgets.names()
    for name in widgets.names():
        assert (widgets.base.HERE / f"{name}.svg").is_file()
        assert "export default" in widgets.source(name)
        assert "innerHTML" not in widgets.source(name)  # text never becomes HTML


def test_the_score_is_the_packages():
    """Query and key alike, every pair of length one: the figure's score is rotate's."""
    config = Qwen2Config.named("Qwen2-0.5B")
    x = torch.zeros(1, 1, 2, 64)
    x[..., :32] = 1.0
    for distance in (0, 1, 6, 50, 128):
        cos, sin = RotaryEmbedding(config)(torch.tensor([[20 + distance, 20]]))
        query, key = rotate(x, cos, sin)[0, 0]
        figure = RopeClocks(distance=distance)
        assert math.isclose(figure.score(), float(query @ key) / 32, abs_tol=1e-5)


@pytest.mark.parametrize("bad", [10**9, -3, 12.6, math.nan, math.inf, "many", None, [1]])
def test_absurd_numbers_are_clamped_and_said(bad):
    figure = RopeClocks(distance=bad)
    assert 0 <= figure.distance <= 128
    assert str(bad)[:8] in figure.note
    assert "0 to 128" in figure.note


def test_good_numbers_leave_no_note():
    assert RopeClocks(key_position=4096, distance=128, pair=31, base=10_000).note == ""


def test_what_is_stored_is_complete_and_safe():
    figure = RopeClocks(distance=9)
    figure.note = "<script>alert('&')</script>"
    data, _ = figure._repr_mimebundle_()
    stored = data["text/html"]
    assert "<script" not in stored
    state = json.loads(html.unescape(re.search(r'data-state="([^"]*)"', stored)[1]))
    assert state == figure.state()
    assert state["note"] == figure.note
    assert "at distance 9" in re.search(r'alt="([^"]*)"', stored)[1]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert figure.as_html() == figure.as_html()


@pytest.mark.xdist_group("site")
def test_the_stored_picture_is_what_the_module_draws(browser):
    for kind in figures():
        stored = (widgets.base.HERE / f"{kind.MODULE}.svg").read_text(encoding="utf-8")
        assert picture(browser, kind()) == stored


@pytest.mark.xdist_group("site")
def test_a_module_that_throws_stops_the_build_with_file_and_line(browser, monkeypatch):
    broken = widgets.source("rope_clocks").replace("  el.append(root);", "  null.append(root);")
    line = broken[: broken.index("null.append")].count("\n") + 1
    line -= (widgets.base.HERE / "kit.js").read_text(encoding="utf-8").count("\n") + 1
    monkeypatch.setattr(widgets, "source", lambda name: broken)
    with pytest.raises(SystemExit, match=f"widgets/rope_clocks.js:{line}: .*null"):
        picture(browser, RopeClocks())
