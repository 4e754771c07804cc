"""The roofline on the built site, without a kernel, over http and from disk."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import LARGE, SMALL, says, set_slider, watched
from test_site_14 import mounted

from qwen2_book.widgets import Roofline

pytestmark = pytest.mark.xdist_group("site")
PAGE, NAME = "notebooks/15_making_it_fast.html", "roofline"
LIVE = f'[data-figure="{NAME}"][data-live="1"]'


def shown(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:,.0f}"


def told(figure: Roofline) -> list[str]:
    """What the figure's line must say of a state."""
    parts = [
        f"{shown(figure.intensity())} operations a byte, bound by {figure.bound()}.",
        f"At the limit {shown(figure.limit())} tokens/s.",
    ]
    if (rate := figure.measured()) is not None:
        parts.append(f"Measured: {shown(rate)}, which is {100 * rate / figure.limit():.0f}% of it.")
    elif figure.data["points"]:
        parts.append("This pass was not measured.")
    return parts


def pick(page, key: str, value: int) -> None:
    page.locator(f'[data-figure="{NAME}"] input[data-key="{key}"][value="{value}"]').check()


def agrees(page) -> None:
    """Drive the figure by keys and choices, and compare each line with Python's."""
    says(page, NAME, *told(Roofline()))
    set_slider(page, NAME, "log_batch", 3)
    says(page, NAME, "8 texts", *told(Roofline(log_batch=3)))
    pick(page, "weights", 3)
    says(page, NAME, "in int4:", *told(Roofline(weights=3, log_batch=3)))
    pick(page, "size", 2)
    set_slider(page, NAME, "log_tokens", 15)
    says(page, NAME, "Qwen2-7B", *told(Roofline(size=2, weights=3, log_batch=3, log_tokens=15)))
    pick(page, "prefill", 1)
    state = {"size": 2, "weights": 3, "log_batch": 3, "log_tokens": 15, "prefill": 1}
    says(page, NAME, "(so many rows read bfloat16, not int4)", *told(Roofline(**state)))
    set_slider(page, NAME, "log_batch", 0)
    set_slider(page, NAME, "log_tokens", 10)
    pick(page, "size", 0)
    pick(page, "weights", 0)
    says(
        page, NAME, "A prompt of 1,024 tokens", *told(Roofline(weights=0, log_tokens=10, prefill=1))
    )


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_roofline_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector(LIVE)
        agrees(page)
        assert wrong == []


def test_a_measured_pass_is_chosen_by_touch(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector(LIVE)
        points = Roofline().data["points"]
        place = next(n for n, p in enumerate(points) if p[:4] == [0, 0, 32, 128])
        page.locator(f'[data-figure="{NAME}"] [data-point="{place}"]').click(force=True)
        says(page, NAME, "32 texts", *told(Roofline(weights=0, log_batch=5)))
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert wrong == []


def test_the_line_says_every_kind_of_pass(browser, tmp_path):
    """One figure for each: weights, batches up to 64, prompt or token, another machine."""
    states = [
        {"weights": weights, "log_batch": batch, "log_tokens": tokens, "prefill": prefill}
        for weights in range(4)
        for batch, tokens, prefill in ((4, 9, 0), (6, 15, 0), (0, 4, 1))
    ]
    states += [{"size": 3, "weights": 3, "bandwidth": 2e12, "speed": 4e14, "log_batch": 6}]
    for number, state in enumerate(states):
        folder = tmp_path / str(number)
        folder.mkdir()
        figure = Roofline(**state)
        with mounted(browser, figure, folder) as (page, wrong):
            says(page, NAME, *told(figure))
            assert wrong == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_the_figure_alone_is_whole_in_both_themes(browser, tmp_path, theme, size):
    figure = Roofline(weights=3, log_batch=2)
    with mounted(browser, figure, tmp_path, theme, viewport=size) as (page, wrong):
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page.evaluate(
            "document.body.style.background = getComputedStyle(document.querySelector"
            "('.q2b')).getPropertyValue('--q2b-paper')"
        )
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        bad = [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")]
        assert bad == [] and wrong == []
        labels = page.locator(".q2b-picture").evaluate_all(
            "all => all.map(e => e.getAttribute('aria-label'))"
        )
        assert re.fullmatch(r"A pass with [\d.]+ operations a byte, under a roof.*", labels[0])
