"""The chunk figure on the built site, without a kernel, over http and from disk."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import ChunkDistances

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/13_long_context.html"


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_chunk_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{PAGE}")
        page.wait_for_selector('[data-figure="chunk_distances"][data-live="1"]')
        for query, chunk, local in ((33, 12, 2), (39, 20, 10), (21, 9, 6)):
            for key, value in (("query", query), ("chunk", chunk), ("local", local)):
                set_slider(page, "chunk_distances", key, value)
            row = ChunkDistances(query=query, chunk=chunk, local=local).row()
            says(page, "chunk_distances", f"key is {query} tokens away and seems {row[0]} away")
            says(page, "chunk_distances", f"no key seems farther than {row.max()}.")
        assert wrong == []


def test_a_row_is_dragged(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        page.wait_for_selector('[data-figure="chunk_distances"][data-live="1"]')
        matrix = page.locator('[data-figure="chunk_distances"] svg').first
        matrix.evaluate("element => element.scrollIntoView({block: 'center'})")
        box = matrix.bounding_box()
        height = box["height"] / 330
        page.mouse.move(box["x"] + 60, box["y"] + 40 * height)
        page.mouse.down()
        page.mouse.move(box["x"] + 60, box["y"] + (20 + 294 * 12.5 / 40) * height)
        page.mouse.up()
        says(page, "chunk_distances", "Query 12 meets")
        assert wrong == []
