"""The sampling figure on the website: what it says is what Python computes."""

import pytest
from browser import LARGE, SMALL, set_slider, watched

from qwen2_book.widgets import SamplingKnobs

pytestmark = pytest.mark.xdist_group("site")
NAME = "sampling_knobs"
RELEASED = {"temperature": 14, "top_k": 20, "top_p": 80, "penalty": 110}


def told(**state) -> list[str]:
    """What the figure's line must say of a state."""
    outcome = SamplingKnobs(**state).outcome()
    more = "More than " if outcome.open else ""
    parts = [f"{more}{outcome.kept:,} of 151,665 tokens"]
    best = outcome.probabilities.max()
    parts.append("100%" if best >= 0.9995 else f"{best:.1%}")
    if not outcome.open:
        parts.append(f"{outcome.entropy:.2f} after")
    return parts


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/notebooks/11_generation.html")
        page.wait_for_selector(f'[data-figure="{NAME}"][data-live="1"]')
        figure = page.locator(f'[data-figure="{NAME}"]')
        lines = f'[data-figure="{NAME}"] .q2b-result[aria-live]'

        def agrees(**state) -> None:
            for part in told(**state):
                page.wait_for_function(
                    "([s, part]) => document.querySelector(s).textContent.includes(part)",
                    arg=[lines, part],
                )

        agrees()
        set_slider(page, NAME, "temperature", 26)
        agrees(temperature=26)
        set_slider(page, NAME, "top_p", 90)
        agrees(temperature=26, top_p=90)
        figure.locator("button", has_text="as released").click()
        for prompt in range(6):
            figure.locator(f'input[data-key="prompt"][value="{prompt}"]').check()
            agrees(prompt=prompt, **RELEASED)
        figure.locator("button", has_text="greedy").click()
        agrees(prompt=5, temperature=0)
        figure.locator("button", has_text="all off").click()
        set_slider(page, NAME, "penalty", 130)
        agrees(prompt=5, penalty=130)
        assert wrong == []


def test_it_fits_a_small_screen(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/notebooks/11_generation.html")
        page.wait_for_selector(f'[data-figure="{NAME}"][data-live="1"]')
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert wrong == []
