"""The router figure on the built site, without a kernel, over http and from disk."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import RouterFlow

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/08_mixture_of_experts.html"
LIVE = '[data-figure="router_flow"][data-live="1"]'


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_router_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector(LIVE)
        for sentence, top_k, layer, token in ((0, 2, 0, 4), (2, 4, 2, 8), (3, 1, 1, 2)):
            choice = f'[data-figure="router_flow"] input[data-key="sentence"][value="{sentence}"]'
            page.locator(choice).check()
            set_slider(page, "router_flow", "top_k", top_k)
            set_slider(page, "router_flow", "layer", layer)
            set_slider(page, "router_flow", "token", token)
            python = RouterFlow(sentence=sentence, top_k=top_k, layer=layer, token=token)
            weights = python.probabilities()[layer, token]
            parts = [f"expert {e} × {weights[e]:.2f}" for e in python.chosen()[layer, token]]
            loads = python.loads()
            says(page, "router_flow", ", ".join(parts[:1]), *(p.split(" ×")[0] for p in parts))
            says(page, "router_flow", f"Busiest expert: {loads.max()} of {loads.sum()} choices")
            says(page, "router_flow", f"{(loads == 0).sum()} idle")
            says(page, "router_flow", f"{python.data['losses'][top_k - 1]:.2f} nats")
        assert wrong == []


def test_a_token_is_chosen_by_touch(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector(LIVE)
        token = page.locator('[data-figure="router_flow"] rect[data-token="6"]')
        token.scroll_into_view_if_needed()
        token.tap()
        says(page, "router_flow", "“Oscar”")
        overflow = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(overflow)
        assert wrong == []
