"""Chapter 01 on the website: the map and the lens, as a reader's keys move them."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import LogitLens, ModelMap

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/01_meet_the_model.html"


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_figures_agree_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        for name in ("model_map", "logit_lens"):
            page.wait_for_selector(f'[data-figure="{name}"][data-live="1"]')
        set_slider(page, "model_map", "tokens", 3)
        for size in (0, 3):
            page.locator(
                f'[data-figure="model_map"] input[data-key="size"][value="{size}"]'
            ).check()
            for door in (1, 4, 7, 10, 11):
                set_slider(page, "model_map", "door", door)
                shapes = ModelMap(size=size, door=door, tokens=3).shapes()
                says(page, "model_map", f"Door {door}, ", " and ".join(map(str, shapes)))
        for prompt in (0, 1):
            choice = f'[data-figure="logit_lens"] input[data-key="prompt"][value="{prompt}"]'
            page.locator(choice).check()
            last = len(LogitLens().data["prompts"][prompt]["tokens"]) - 1
            for block, position in ((18, last), (21, 1)):
                set_slider(page, "logit_lens", "block", block)
                set_slider(page, "logit_lens", "position", position)
                python = LogitLens(prompt=prompt, block=block, position=position)
                text, share = python.five()[0]
                shown = text.replace(" ", "␣").replace("\n", "⏎")
                says(page, "logit_lens", f"With {block} of 24 blocks done", f"“{shown}”")
                says(page, "logit_lens", f"({share / 10:.1f}%)")
                says(page, "logit_lens", f"stands first from {python.settled()} blocks on")
        assert wrong == []


def test_a_box_leads_to_its_chapter_and_a_door_can_be_clicked(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector('[data-figure="model_map"][data-live="1"]')
        page.locator('[data-figure="model_map"] [data-door="7"]').click()
        says(page, "model_map", "Door 7, ")
        page.locator('[data-figure="logit_lens"] rect[data-cell="22 4"]').click()
        says(page, "logit_lens", "With 22 of 24 blocks done", "Paris")
        for box in page.locator("a.q2b-box").all():  # none leads to a page that is not there
            target = box.get_attribute("href").split("#")[0]
            assert page.request.get(target).ok, target
        page.locator('a.q2b-box[aria-label="turn by position: chapter 04"]').click()
        page.wait_for_url("**/04_rope.html*")
        assert wrong == []
