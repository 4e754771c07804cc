"""Chapter 05's figure on the built site: keyboard and pointer, http and file, Python's numbers."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import HeadsBill

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/05_grouped_query_attention.html"


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_bill_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector('[data-figure="heads_bill"][data-live="1"]')
        says(page, "heads_bill", "57,344 bytes a token (as released)", "1.75 GiB")
        state = {"kv": 4, "picked": 2, "log_length": 17, "log_batch": 3}
        for key, value in state.items():
            set_slider(page, "heads_bill", key, value)
        python = HeadsBill(**state)
        says(page, "heads_bill", f"{python.cache_bytes() / 2**30:.0f} GiB", python.fitting())
        says(page, "heads_bill", f"query heads {python.readers[0]} to {python.readers[-1]}")
        page.locator('[data-figure="heads_bill"] input[data-key="size"][value="4"]').check()
        python = HeadsBill(size=4, log_length=17, log_batch=3, picked=0)
        says(page, "heads_bill", "327,680 bytes a token (as released)", python.fitting())
        says(page, "heads_bill", "Key head 0 is read by query heads 0 to 7.")
        assert wrong == []


def test_the_pointer_lights_the_readers(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector('[data-figure="heads_bill"][data-live="1"]')
        page.locator('[data-figure="heads_bill"] rect[data-key="3"][height="44"]').hover()
        says(page, "heads_bill", "Key head 3 is read by query heads 21 to 27.")
        page.locator('[data-figure="heads_bill"] rect[data-key="0"][height="32"]').first.click()
        says(page, "heads_bill", "Key head 0 is read by query heads 0 to 6.")
        assert wrong == []
