"""The figure of a block on the built site, without a kernel, over http and from disk."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import WeightBlock

pytestmark = pytest.mark.xdist_group("site")
PAGE, NAME = "notebooks/10_loading_checkpoints.html", "weight_block"
FIGURE = f'[data-figure="{NAME}"]'


def opened(page, base: str) -> None:
    page.goto(f"{base}/{PAGE}")
    page.wait_for_selector(f'{FIGURE}[data-live="1"]')


def pick(page, key: str, value) -> None:
    page.locator(f'{FIGURE} input[data-key="{key}"][value="{value}"]').check()


def agrees(page, figure: WeightBlock) -> None:
    error, lost = figure.errors()[figure.block], figure.lost()
    says(page, NAME, f"block {figure.block} in {figure.kind}: ")
    says(page, NAME, f"error {error:.1%} of the weights; {lost} of 32 became zero")


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        opened(page, base)
        agrees(page, WeightBlock())
        for row, kind, block, stretch in (
            (0, "Q4_0", 4, 80),
            (1, "Q6_K", 23, 35),
            (2, "Q4_K", 0, 10),
        ):
            pick(page, "row", row)
            pick(page, "kind", kind)
            set_slider(page, NAME, "block", block)
            set_slider(page, NAME, "stretch", stretch)
            agrees(page, WeightBlock(row=row, kind=kind, block=block, stretch=stretch))
        assert wrong == []


def test_the_slider_is_moved_by_keyboard(home, browser):
    with watched(browser, home, viewport=LARGE) as (page, wrong):
        opened(page, home)
        page.locator(f'{FIGURE} input[data-key="stretch"]').focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        agrees(page, WeightBlock(stretch=15))
        page.keyboard.press("End")
        agrees(page, WeightBlock(stretch=80))
        assert wrong == []


def test_a_block_is_chosen_in_the_bars_and_the_circle_is_dragged(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        opened(page, home)
        bar = page.locator(f'{FIGURE} rect[data-block="9"]')
        bar.scroll_into_view_if_needed()
        bar.click()
        agrees(page, WeightBlock(block=9))
        large = page.locator(f'{FIGURE} circle[r="5"]')
        large.evaluate("circle => circle.scrollIntoView({block: 'center'})")  # off the head bar
        box = large.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        plot = page.locator(f"{FIGURE} svg").first.bounding_box()
        middle = plot["y"] + plot["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        for _ in range(3):
            page.mouse.move(x, y + (y - middle) * 0.3)
        page.mouse.up()
        slider = page.locator(f'{FIGURE} input[data-key="stretch"]')
        stretch = int(slider.input_value())
        assert stretch > 10
        agrees(page, WeightBlock(block=9, stretch=stretch))
        assert wrong == []
