"""The parity ladder on the built site: keyboard and pointer, http and file, Python's names."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import ParityLadder

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/09_the_whole_model.html"


def pick(page, key: str, value: int) -> None:
    page.locator(f'[data-figure="parity_ladder"] input[data-key="{key}"][value="{value}"]').check()


def look(page) -> int:
    return int(page.locator('[data-figure="parity_ladder"] input[data-key="look"]').input_value())


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_first_tensor_is_pythons(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector('[data-figure="parity_ladder"][data-live="1"]')
        for bug, at, tolerance in ((1, 2, -40), (5, 0, -12), (7, 1, -33), (6, 3, -40), (0, 1, -50)):
            pick(page, "bug", bug)
            pick(page, "at", at)
            set_slider(page, "parity_ladder", "tolerance", tolerance)
            python = ParityLadder(bug=bug, at=at, tolerance=tolerance)
            first, run = python.first(), python.run()
            says(page, "parity_ladder", first[0] if first else "No tensor is off by more than")
            says(page, "parity_ladder", f"differs at {run['changed']} of 48 positions")
            says(page, "parity_ladder", f"perplexity {run['perplexity']:.2f}, without")
            if first:
                before = list(python.distances()).index(first[0])
                says(page, "parity_ladder", f"the {before} tensors before it agree")
                assert look(page) == int(first[0].split(".")[2])  # the layer comes into view
        assert wrong == []


def test_the_tolerance_is_dragged(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector('[data-figure="parity_ladder"][data-live="1"]')
        plot = page.locator('[data-figure="parity_ladder"] svg').first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        scale, x = box["height"] / 310, box["x"] + box["width"] / 2
        heights = {power: 28 + (1 - power) / 9 * 226 for power in (-4, -6, 0)}
        page.mouse.move(x, box["y"] + heights[-4] * scale)
        page.mouse.down()
        for power in (-6, 0):
            page.mouse.move(x, box["y"] + heights[power] * scale, steps=4)
            first = ParityLadder(tolerance=10 * power).first()
            says(page, "parity_ladder", first[0] if first else "No tensor is off by more than 1")
        page.mouse.up()
        assert wrong == []
