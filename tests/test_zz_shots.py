import pytest
from browser import settled, watched
pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/09_the_whole_model.html"

@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shots(home, browser, width, scheme):
    with watched(browser, home, viewport={"width": width, "height": 900}, color_scheme=scheme) as (page, wrong):
        page.goto(f"{home}/{PAGE}")
        settled(page)
        page.evaluate(f"document.documentElement.dataset.theme='{scheme}'; document.documentElement.dataset.mode='{scheme}'")
        page.locator('[data-figure="parity_ladder"]').screenshot(path=f"/tmp/s09_{width}_{scheme}.png")
        if scheme == "light" or width == 1280:
            page.screenshot(path=f"/tmp/s09_page_{width}_{scheme}.png", full_page=True)
        print(page.evaluate("[document.documentElement.scrollWidth, innerWidth]"))
        assert wrong == []
