"""The loss-mask figure on the built site, without a kernel, over http and from disk."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import LossMask

pytestmark = pytest.mark.xdist_group("site")
PAGE, NAME = "notebooks/17_supervised_finetuning.html", "loss_mask"
LIVE = f'[data-figure="{NAME}"][data-live="1"]'


def told(figure: LossMask) -> list[str]:
    """What the figure's line must say of a state."""
    now, (done, answers) = figure.learned(), figure.ends()
    fits = [0 < at < figure.cut for at in range(len(now))]
    parts = [
        f"{sum(now)} of {len(now)} tokens are learned",
        f"{done} of {answers} answers to the end",
    ]
    if any(now):
        parts.append(f"mean loss is {figure.mean(now):.2f} nats")
        parts.append(f"over everything that fits it would be {figure.mean(fits):.2f}")
    else:
        parts.append("Nothing is left to learn")
    if len(now) > figure.cut:
        parts.append(f"{len(now) - figure.cut} cut off")
    return parts


def pick(page, **choices) -> None:
    for key, value in choices.items():
        place = f'[data-figure="{NAME}"] input[data-key="{key}"]'
        page.locator(place).nth(value).check()  # the choices stand in the order of their values


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector(LIVE)
        figure = LossMask()
        says(page, NAME, *told(figure))
        for key, value in (("newline", 1), ("late", 1), ("everything", 1), ("preset", 3)):
            pick(page, **{key: value})
            setattr(figure, key, value)
            says(page, NAME, *told(figure))
        pick(page, everything=0, newline=0, late=0)
        set_slider(page, NAME, "cut", 60)
        figure = LossMask(preset=3, cut=60)
        says(page, NAME, *told(figure))
        set_slider(page, NAME, "cut", 16)
        says(page, NAME, "Nothing is left to learn")
        page.locator(f'[data-figure="{NAME}"] [data-token="15"]').click()
        line = page.locator(f'[data-figure="{NAME}"] .q2b-result[data-cell]')
        assert "Token 15: " in line.text_content() and "read, not learned" in line.text_content()
        assert wrong == []


def test_small_screens_and_access(site, home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector(LIVE)
        assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]
        boxes = page.locator(f'[data-figure="{NAME}"] [data-token] rect:first-child')
        inside = page.locator(f'[data-figure="{NAME}"] svg').bounding_box()
        last = boxes.last.bounding_box()
        assert last["x"] + last["width"] <= inside["x"] + inside["width"] + 1
        assert wrong == []
        found = Axe().run(page, context=f'[data-figure="{NAME}"]')  # it asks for files of its own
        assert found.violations_count == 0, found.generate_report()
