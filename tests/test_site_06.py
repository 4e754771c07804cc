"""The gate figure on the built site, without a kernel, over http and from disk."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import GateNeurons

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/06_swiglu.html"


def pick(page, key: str, value) -> None:
    page.locator(f'[data-figure="gate_neurons"] input[data-key="{key}"][value="{value}"]').check()


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_gate_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector('[data-figure="gate_neurons"][data-live="1"]')
        for neuron, show, threshold in ((1, "gate", 31), (0, "product", 44), (11, "up", 60)):
            pick(page, "neuron", neuron)
            pick(page, "show", show)
            set_slider(page, "gate_neurons", "threshold", threshold)
            python = GateNeurons(neuron=neuron, show=show, threshold=threshold)
            found, above, marked = python.counts()
            says(page, "gate_neurons", f"picks {above} tokens, {found} of them labelled")
            says(page, "gate_neurons", f"of {marked} in the text")
        assert wrong == []


def test_the_line_is_dragged_and_a_token_tells_its_values(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector('[data-figure="gate_neurons"][data-live="1"]')
        plot = page.locator('[data-figure="gate_neurons"] svg').nth(1)
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * (14 + 302 * 0.5) / 330, box["y"] + 60)
        page.mouse.up()
        found, above, _ = GateNeurons(threshold=50).counts()
        says(page, "gate_neurons", f"picks {above} tokens, {found} of them")
        token = page.locator('[data-figure="gate_neurons"] rect[data-token]').nth(3)
        token.scroll_into_view_if_needed()
        token.hover()
        line = page.locator('[data-figure="gate_neurons"] .q2b-result').nth(1)
        assert "gate " in line.text_content() and "product " in line.text_content()
        assert wrong == []
