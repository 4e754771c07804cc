"""The head browser on the built site, without a kernel, over http and from disk."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import LARGE, SMALL, says, set_slider, watched
from playwright.sync_api import Browser, Page

from qwen2_book import widgets
from qwen2_book.widgets import Figure, HeadBrowser

pytestmark = pytest.mark.xdist_group("site")
PAGE, NAME = "notebooks/14_seeing_attention.html", "head_browser"
LIVE = f'[data-figure="{NAME}"][data-live="1"]'
ROOT = Path(__file__).parent.parent
ONE_ONLY = f"""document.querySelectorAll('[data-figure="{NAME}"]').forEach(
    (figure, place) => place && figure.remove())"""  # the page has a second one, of another prompt


@contextmanager
def mounted(
    browser: Browser, figure: Figure, folder: Path, theme: str = "light", **options
) -> Iterator[tuple[Page, list[str]]]:
    """A page with the figure alone, brought to life by the site's host script, from disk."""
    modules = json.dumps({figure.MODULE: widgets.source(figure.MODULE)}).replace("</", "<\\/")
    host = (ROOT / "site" / "static" / "host.js").read_text(encoding="utf-8")
    (folder / "figure.html").write_text(
        f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>figure</title>'
        f"<style>{widgets.STYLE}</style><main><h1>Figure</h1>{figure.as_html()}</main>"
        f"<script>window.QWEN2_BOOK_FIGURES = {modules};{host}</script></html>",
        encoding="utf-8",
    )
    with watched(browser, folder.as_uri(), **({"viewport": LARGE} | options)) as (page, wrong):
        page.goto(f"{folder.as_uri()}/figure.html")
        page.wait_for_selector('.q2b-figure[data-live="1"]')
        yield page, wrong


def told(figure: HeadBrowser) -> list[str]:
    """What the figure's line must say of a state."""
    kept = [100 * float(HeadBrowser(**state(figure, first=first)).kept()) for first in (0, 1)]
    parts = [
        f"Layer {figure.layer}, head {figure.head}: a window of {figure.window} ",
        f"{kept[figure.first]:.1f}% of its attention",
        f"the first token {kept[1 - figure.first]:.1f}%)",
        f"{figure.fitting()} of 336 heads keep more than 90%",
        f"gives {100 * figure.score('first'):.1f}% to the first token, "
        f"{100 * figure.score('previous'):.1f}% to the token before, "
        f"{100 * figure.score('follows'):.1f}% to what followed the same token",
    ]
    if figure.chunk:
        names = ("the same chunk", "the chunk before", "earlier ones")
        shares = zip(figure.zones(), names, strict=True)
        said = ", ".join(f"{math.floor(100 * share + 0.5)}% in {name}" for share, name in shares)
        parts.append(f"Chunks of {figure.chunk}: {said}.")
    if figure.shade == "loss":
        rise = figure.data["losses"]["rises"][figure.layer * 14 + figure.head] / 10_000
        parts.append(f"{'falls' if rise < 0 else 'rises'} by {abs(rise):.4f}.")
    return parts


def state(figure: HeadBrowser, **other) -> dict:
    return {k: v for k, v in figure.state().items() if k in figure.limits} | other


def about(share: float) -> str:
    """A share as the second line says it."""
    whole = f"about {math.floor(100 * share + 0.5)}%"
    return "under 1%" if 0 < share < 0.005 else whole


def second_line(page, part: str) -> None:
    page.wait_for_function(
        "([name, part]) => document.querySelector(`[data-figure=${name}] .q2b-result[data-cell]`)"
        ".textContent.includes(part)",
        arg=[NAME, part],
    )


def pick(page, **choices) -> None:
    for key, value in choices.items():
        page.locator(f'[data-figure="{NAME}"] input[data-key="{key}"][value="{value}"]').check()


def point(page, number: int, x: float, y: float) -> tuple[float, float]:
    """Where a place of a picture's own coordinates is on the page."""
    picture = page.locator(f'[data-figure="{NAME}"] svg').nth(number)
    picture.evaluate("element => element.scrollIntoView({block: 'center'})")
    box = picture.bounding_box()
    return box["x"] + x * box["width"] / 330, box["y"] + y * box["width"] / 330


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_browser_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector(LIVE)
        page.evaluate(ONE_ONLY)
        agrees(page)
        assert wrong == []


def agrees(page) -> None:
    """Drive the stored figure by sliders, choices and keys, and compare each line with Python's."""
    start = HeadBrowser()
    says(page, NAME, *told(start))
    pick(page, prompt=2, first=1, shade="loss")
    for key, value in {"layer": 3, "head": 1, "window": 12 - 1, "chunk": 16, "query": 30}.items():
        set_slider(page, NAME, key, value)
    moved = HeadBrowser(
        prompt=2, first=1, shade="loss", layer=3, head=1, window=12, chunk=16, query=30
    )
    says(page, NAME, *told(moved))
    best = max(range(31), key=lambda key: (moved.weight(key), -key))
    second_line(page, "Query 30 ")
    second_line(page, f", key {best} ")
    second_line(page, f": {about(moved.weight(best))} of the query")
    square = page.locator(f'[data-figure="{NAME}"] [role="radio"][aria-checked="true"]')
    square.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    moved.layer, moved.head = 4, 2
    says(page, NAME, *told(moved))
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "layer 4, head 2"
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # stays
    moved.layer = 23
    says(page, NAME, *told(moved))
    pick(page, prompt=1, shade="follows")
    moved.prompt, moved.shade = 1, "follows"
    says(page, NAME, *told(moved))
    page.locator(f'[data-figure="{NAME}"] [data-token="21"]').click()
    second_line(page, "Query 21 ")


@pytest.mark.parametrize("way", ["http", "file"])
def test_head_and_query_are_dragged(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector(LIVE)
        page.evaluate(ONE_ONLY)
        dragged(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert wrong == []


def dragged(page) -> None:
    """Drag over the grid to another head, then over its map to another cell."""
    box = page.locator(f'[data-figure="{NAME}"] [data-head="{16 * 14 + 2}"]')
    x, y = (float(box.get_attribute(name)) for name in "xy")
    page.mouse.move(*point(page, 0, x - 40, y + 6))
    page.mouse.down()
    page.mouse.move(*point(page, 0, x + 6, y + 6))
    page.mouse.up()
    figure = HeadBrowser(layer=16, head=2, query=25)
    says(page, NAME, *told(figure))
    cell = 280 / 40
    page.mouse.move(*point(page, 1, 46 + 3.5 * cell, 20 + 33.5 * cell))
    page.mouse.down()
    page.mouse.move(*point(page, 1, 46 + 15.5 * cell, 20 + 25.5 * cell))
    page.mouse.up()
    second_line(page, "Query 25 ")
    second_line(page, ", key 15 ")
    second_line(page, f": {about(figure.weight(15))} of the query")
    slider = page.locator(f'[data-figure="{NAME}"] input[data-key="query"]')
    assert slider.input_value() == "25"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_the_figure_alone_is_whole_in_both_themes(browser, tmp_path, theme, size):
    with mounted(browser, HeadBrowser(shade="loss", chunk=8), tmp_path, theme, viewport=size) as (
        page,
        wrong,
    ):
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page.evaluate(
            "document.body.style.background = getComputedStyle(document.querySelector"
            "('.q2b')).getPropertyValue('--q2b-paper')"
        )
        faults = [
            f"{fault['id']}: {node['target']}"
            for fault in Axe()
            .run(page, options={"resultTypes": ["violations"]})
            .response["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
        assert faults == [] and wrong == []
