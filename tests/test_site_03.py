"""The residual-stream figure on the built site: by keyboard, over http and from disk."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import ResidualStream

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/03_residual_stream.html"


def digits(value: float) -> str:
    """Four significant digits, as the figure writes them."""
    return f"{float(f'{value:.4g}'):g}" if abs(value) < 1e4 else str(value)


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_stream_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector('[data-figure="residual_stream"][data-live="1"]')
        for state in ({"block": 3, "token": 0}, {"block": 22, "token": 5}):
            for key, value in state.items():
                set_slider(page, "residual_stream", key, value)
            python = ResidualStream(**state)
            (attention, _), (feed_forward, _) = python.added()
            says(page, "residual_stream", f"length {digits(python.length())};")
            says(page, "residual_stream", f"the others, {digits(python.others())} in the median")
            says(page, "residual_stream", f"attention added {digits(attention)}")
            says(page, "residual_stream", f"layer {digits(feed_forward)}.")
            says(page, "residual_stream", f"in dimension {python.largest()[0][0]}.")
        page.locator('[data-figure="residual_stream"] input[data-key="prompt"][value="1"]').check()
        chinese = ResidualStream(block=22, token=5, prompt=1)
        says(page, "residual_stream", f"length {digits(chinese.length())};")
        assert wrong == []


def test_the_block_is_dragged(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector('[data-figure="residual_stream"][data-live="1"]')
        lines = page.locator('[data-figure="residual_stream"] svg').first
        lines.scroll_into_view_if_needed()
        box = lines.bounding_box()
        at = lambda block: box["x"] + box["width"] * (40 + 282 * block / 24) / 330  # noqa: E731
        page.mouse.move(at(2), box["y"] + 60)
        page.mouse.down()
        page.mouse.move(at(12), box["y"] + 60)
        page.mouse.up()
        says(page, "residual_stream", "after 12 blocks", digits(ResidualStream(block=12).length()))
        assert wrong == []
