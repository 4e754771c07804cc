"""Chapter 18's figures on the built site: sliders, choices and drags, against Python's numbers."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import DpoMargin, DpoPlane
from qwen2_book.widgets.dpo_margin import KINDS
from qwen2_book.widgets.dpo_plane import ARMS

pytestmark = pytest.mark.xdist_group("site")
PAGE = "notebooks/18_dpo.html"


def minus(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def margin_says(page, figure: DpoMargin) -> None:
    loss, push, share = figure.values()
    says(
        page,
        "dpo_margin",
        f"{KINDS[figure.kind]}: loss {loss:.3f}, push {minus(push, 4)} a nat",
        f"{minus(100 * share, 0)}% of that at h = 0",
        f"h = {minus(figure.half_nats / 2)} nats",
    )


def plane_says(page, figure: DpoPlane) -> None:
    now = figure.now()
    says(
        page,
        "dpo_plane",
        f"{ARMS[figure.arm]}, β = {figure.data['betas'][figure.beta]:g}, seed {figure.seed}, "
        f"step {now['step']:.0f}: ",
        f"chosen {minus(now['chosen'])} nats, rejected {minus(now['rejected'])}, "
        f"margin {minus(now['margin'])}, where a pair's loss is {now['loss']:.3f}.",
        f"{now['formed']} are well-formed and {now['right']} right",
    )


def opened(page, base: str) -> None:
    page.goto(f"{base}/{PAGE}")
    for name in ("dpo_margin", "dpo_plane"):
        page.wait_for_selector(f'[data-figure="{name}"][data-live="1"]')


def pick(page, name: str, key: str, value) -> None:
    page.locator(f'[data-figure="{name}"] input[data-key="{key}"][value="{value}"]').check()


@pytest.mark.parametrize("way", ["http", "file"])
def test_both_figures_agree_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        opened(page, base)
        margin_says(page, DpoMargin())
        set_slider(page, "dpo_margin", "half_nats", 15)
        for beta, kind in ((5, "ipo"), (2, "smoothed"), (4, "hinge"), (0, "sigmoid")):
            set_slider(page, "dpo_margin", "beta", beta)
            pick(page, "dpo_margin", "kind", kind)
            margin_says(page, DpoMargin(half_nats=15, beta=beta, kind=kind))
        plane_says(page, DpoPlane())
        for state in ({"arm": 1, "beta": 3}, {"arm": 0, "beta": 0}):
            for key, value in state.items():
                pick(page, "dpo_plane", key, value)
            set_slider(page, "dpo_plane", "seed", 4)
            set_slider(page, "dpo_plane", "look", 3)
            plane_says(page, DpoPlane(look=3, seed=4, **state))
        assert wrong == []


def drag(page, name: str, number: int, start: tuple, end: tuple) -> None:
    """Press at a place of a picture's own coordinates, and let go at another."""
    svg = page.locator(f'[data-figure="{name}"] svg').nth(number)
    svg.evaluate("element => element.scrollIntoView({block: 'center'})")
    box = svg.bounding_box()
    scale = box["width"] / 330
    page.mouse.move(box["x"] + start[0] * scale, box["y"] + start[1] * scale)
    page.mouse.down()
    page.mouse.move(box["x"] + end[0] * scale, box["y"] + end[1] * scale, steps=4)
    page.mouse.up()


def test_the_pictures_are_dragged(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        opened(page, home)
        drag(page, "dpo_margin", 1, (100, 100), (40 + 280 * 0.75, 120))  # h = 20
        margin_says(page, DpoMargin(half_nats=40))
        drag(page, "dpo_margin", 0, (100, 100), (5, 120))  # beyond the edge
        margin_says(page, DpoMargin(half_nats=-80))
        drag(page, "dpo_plane", 1, (60, 100), (44 + 200 * 0.8, 120))  # look 16 of 20
        plane_says(page, DpoPlane(look=16))
        start = DpoPlane(look=0)
        drag(page, "dpo_plane", 0, (100, 300), places(start, 2))
        plane_says(page, DpoPlane(look=2))
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert wrong == []


def places(figure: DpoPlane, look: int) -> tuple[float, float]:
    """Where a point of the shown run lies in the picture."""
    runs = [run for arm in figure.data["runs"] for beta in arm for run in beta]
    low = min(min(curve) for run in runs for curve in run[:2]) // 10 * 10
    chosen, rejected = figure.data["runs"][figure.arm][figure.beta][figure.seed][:2]
    return (
        44 + (chosen[look] - low) / (10 - low) * 276,
        26 + (10 - rejected[look]) / (10 - low) * 276,
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_the_figures_alone_are_whole_in_both_themes(browser, tmp_path, theme, size):
    from axe_playwright_python.sync_playwright import Axe
    from test_site_14 import mounted

    for figure in (DpoMargin(kind="ipo", half_nats=-9), DpoPlane(arm=1, look=20)):
        with mounted(browser, figure, tmp_path, theme, viewport=size) as (page, wrong):
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            page.evaluate(
                "document.body.style.background = getComputedStyle(document.querySelector"
                "('.q2b')).getPropertyValue('--q2b-paper')"
            )
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            faults = [f["id"] for f in found if f["impact"] in ("serious", "critical")]
            assert faults == [] and wrong == []
