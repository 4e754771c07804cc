"""Interactive figures in Python: limits, what is stored, and the picture that the module draws."""

import html
import json
import math
import re

import pytest
import torch
from pictures import figures, picture

from qwen2_book import Qwen2Config, load, widgets
from qwen2_book.rope import RotaryEmbedding, rotate
from qwen2_book.trace import trace
from qwen2_book.widgets import HeadWindow, RingBuffer, RopeClocks, WindowExplorer, head_data
from qwen2_book.window import visible


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


@pytest.mark.parametrize(
    "state",
    [
        {"log_length": 5, "log_window": 2, "sinks": 3, "layers": 4, "full_layers": 1},
        {"log_length": 4, "log_window": 6, "sinks": 0, "layers": 3, "full_layers": 9},
        {"log_length": 6, "log_window": 0, "sinks": 8, "layers": 2, "full_layers": 0},
    ],
)
def test_the_explorer_counts_what_the_masks_show(state):
    figure = WindowExplorer(**state)
    length, at = 2**figure.log_length, torch.arange(2**figure.log_length)[None]
    windows = figure.config.layer_windows
    masks = [visible(at, at, window, figure.sinks)[0] for window in windows]
    causal = length * (length + 1) // 2
    assert figure.pair_share() == sum(int(m.sum()) for m in masks) / (causal * len(masks))
    assert figure.flops() == sum(int(m.sum()) for m in masks) * 4 * 14 * 64
    assert (
        figure.cache_bytes()
        == sum(
            int(m.any(0).sum() if w is None else m.sum(1).max())
            for m, w in zip(masks, windows, strict=True)
        )
        * 512
    )
    reached = torch.zeros(length, dtype=torch.bool)
    reached[-1] = True
    for window in reversed(windows):
        reached = visible(at, at, window)[0][reached].any(0)
    assert figure.reach() == length - 1 - int(reached.nonzero()[0])


def test_the_ring_holds_the_window():
    for token in (0, 3, 17, 63):
        for window in (1, 5, 16):
            held = [p for p in RingBuffer(token=token, window=window).slots() if p >= 0]
            assert sorted(held) == list(range(max(0, token - window + 1), token + 1))


def test_the_head_figure_shows_what_trace_saw():
    model, tokenizer = load(dtype="float32")
    ids = tokenizer.encode("Alice gave the red ball to Bob. Then Bob gave the red")
    seen = trace(model, ids)
    mapped = [(0, 3), (1, 2)]
    prompt = head_data.prompt_data("tiny", tokenizer.pieces(ids), seen, mapped)
    figure = HeadWindow(window=3, layer=1, head=2)
    figure.data = {"layers": 4, "heads": 6, "mapped": mapped, "prompts": [prompt]}
    for sinks in head_data.SINKS:
        figure.sinks = sinks
        share = seen.mass_in_window(1, 3, sinks)[0].mean(-1)
        assert math.isclose(figure.kept(), float(share[2]), abs_tol=6e-4)
        assert torch.allclose(torch.tensor(figure.all_kept()[1]).float(), share, atol=6e-4)
    levels = torch.tensor(list(head_data.unpack(prompt["maps"]))).view(len(mapped), -1)
    rows, columns = torch.tril_indices(len(ids), len(ids))
    assert torch.allclose((levels[1] / 63) ** 2, seen.attention[1][0, 2][rows, columns], atol=0.02)
    with pytest.raises(ValueError, match="expected 1 to 128 tokens"):
        head_data.prompt_data("tiny", tokenizer.pieces(ids)[:-1], seen, mapped)


def test_the_stored_heads_are_small_and_whole():
    data = head_data.stored()
    assert head_data.STORED.stat().st_size < 300_000
    assert len(HeadWindow().as_html()) < 400_000
    assert (data["layers"], data["heads"], len(data["mapped"])) == (24, 14, 16)
    for prompt in data["prompts"]:
        assert len(prompt["tokens"]) == 128
        assert len(head_data.unpack(prompt["kept"])) == 3 * 336 * 128 * 2
        assert len(head_data.unpack(prompt["maps"])) == 16 * 128 * 129 // 2
    whole = HeadWindow(window=128).all_kept()
    assert ((whole >= 0.999) & (whole <= 1.001)).all()


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
        stored = (widgets.base.HERE / f"{kind.MODULE}.svg").read_bytes().decode()
        assert picture(browser, kind()) == stored


@pytest.mark.xdist_group("site")
def test_a_module_that_throws_stops_the_build_with_file_and_line(browser, monkeypatch):
    broken = widgets.source("rope_clocks").replace("  el.append(root);", "  null.append(root);")
    line = broken[: broken.index("null.append")].count("\n") + 1
    line -= (widgets.base.HERE / "kit.js").read_text(encoding="utf-8").count("\n") + 1
    monkeypatch.setattr(widgets, "source", lambda name: broken)
    with pytest.raises(SystemExit, match=f"widgets/rope_clocks.js:{line}: .*null"):
        picture(browser, RopeClocks())
