"""The budget figure on the built site, without a kernel, over http and from disk."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import TrainingBudget
from qwen2_book.widgets.training_budget import short

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/16_pretraining.html"
FIGURE = '[data-figure="training_budget"]'


def expected(figure):
    """The parts of the result line, computed by Python."""
    operations, size, tokens = figure.choice()
    law, here = figure.law, figure.law.loss(size, tokens)
    best, cheap = law.best_size(operations), law.fewest_operations(here)
    return (
        f"{operations:.1e} operations: {short(size)} weights, {short(tokens)} tokens, "
        f"{short(tokens / size)} tokens a weight",
        f"By the law {here:.2f} nats. The best size for this budget is {short(best)}, with "
        f"{law.loss(best, operations / 6 / best):.2f}.",
        f"would cost {100 * cheap / operations:.0f}% of the training, in a model "
        f"{law.best_size(cheap) / size:.1f} times as large",
    )


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_budget_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector(f'{FIGURE}[data-live="1"]')
        for world, compute, size in (("web", 77, 35), ("web", 180, 143), ("little", 61, 88)):
            page.locator(f'{FIGURE} input[data-key="world"][value="{world}"]').check()
            set_slider(page, "training_budget", "compute", compute)
            set_slider(page, "training_budget", "size", size)
            says(
                page,
                "training_budget",
                *expected(TrainingBudget(world=world, compute=compute, size=size)),
            )
        assert wrong == []


def test_a_model_is_chosen_by_touch_and_moved_by_key(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector(f'{FIGURE}[data-live="1"]')
        button = page.locator(f'{FIGURE} button[data-model="0.5B"]')
        button.scroll_into_view_if_needed()
        button.tap()
        python = TrainingBudget(compute=78, size=35)
        says(page, "training_budget", *expected(python))
        page.locator(f'{FIGURE} input[data-key="size"]').press("ArrowRight")
        says(page, "training_budget", *expected(TrainingBudget(compute=78, size=36)))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert wrong == []
