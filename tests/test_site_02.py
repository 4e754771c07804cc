"""Chapter 02 on the website: the merge stepper by keyboard, against Python."""

import pytest
from browser import LARGE, SMALL, says, watched
from texts import SAMPLES

from qwen2_book.widgets import MergeStepper

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/02_tokenizer.html"
LIVE = '[data-figure="merge_stepper"][data-live="1"]'


def fill(page, text: str) -> None:
    page.locator(f'{LIVE} input[data-key="text"]').fill(text)


def press(page, name: str) -> None:
    page.locator(f'{LIVE} button[data-do="{name}"]').focus()
    page.keyboard.press("Enter")


def finish(page) -> None:
    page.locator(f'{LIVE} input[data-key="step"]').focus()
    page.keyboard.press("End")


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_merges_are_pythons(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector(LIVE, timeout=60_000)
        text = "newest 分词器"
        fill(page, text)
        steps = MergeStepper(text).merges()
        says(page, "merge_stepper", f"Step 0 of {len(steps)}: Piece 1 of 2, as bytes.")
        press(page, "step")
        press(page, "step")
        says(page, "merge_stepper", f"Step 2 of {len(steps)}:", f"(rank {steps[1].rank:,})")
        press(page, "back")
        says(page, "merge_stepper", f"Step 1 of {len(steps)}:", f"(rank {steps[0].rank:,})")
        press(page, "reset")
        says(page, "merge_stepper", "Step 0 of")
        press(page, "play")
        says(page, "merge_stepper", "Step 1 of")
        press(page, "play")
        for text in [*SAMPLES, "it'ſ e\u0301 a\x85b\ufeffc", "print(fooBar)"]:
            text = text[:120].replace("\n", " ").replace("\r", " ").replace("\x00", "")
            figure = MergeStepper(text)
            fill(page, text)
            finish(page)
            size = len(text.encode())
            ids = ", ".join(map(str, figure.ids()))
            says(page, "merge_stepper", f"Done: {size} bytes" if text.isascii() else "Done: ", ids)
            line = page.locator(f"{LIVE} .q2b-result").text_content()
            assert ("may lack a merge" in line) == bool(figure.unsure()), text
        assert wrong == []


def test_a_small_dark_page(home, browser):
    with watched(browser, home, viewport=SMALL, color_scheme="dark") as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector(LIVE, timeout=60_000)
        fill(page, "internationalisation of 国际化 " * 4)
        finish(page)
        says(page, "merge_stepper", "Done:")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert wrong == []
