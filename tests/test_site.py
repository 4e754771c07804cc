"""The website, built once and opened in a real browser: http, file, small, large, dark."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import LARGE, SMALL, says, set_slider, settled, watched

from qwen2_book.widgets import HeadWindow, RingBuffer, RopeClocks, WindowExplorer

pytestmark = pytest.mark.xdist_group("site")
CHINESE = ["滑动窗口", "注意力", "旋转位置编码", "词元", "基数", "交互图"]
# Faults of the theme (sphinx-book-theme 1.3) that no style sheet of ours can mend.
THEME_FAULTS: set[str] = set()


ABSURD = """async () => {
    const place = document.createElement("div");
    const blob = new Blob([QWEN2_BOOK_FIGURES.rope_clocks], {type: "text/javascript"});
    const { default: figure } = await import(URL.createObjectURL(blob));
    const state = {distance: 1e9, key_position: "<script>alert(1)</script>", pair: -4, base: 10000,
        note: "", limits: {distance: [0, 128], key_position: [0, 4096], pair: [0, 31]}};
    const model = {get: (k) => state[k], set: (k, v) => { state[k] = v; },
        on() {}, off() {}, save_changes() {}};
    figure.render({model, el: place});
    place.id = "absurd";
    document.body.append(place);
}"""
# One span of each kind of code token is enough for axe: thousands of equal ones only cost time.
ONE_OF_EACH = """() => {
    const seen = new Set();
    for (const span of document.querySelectorAll(".highlight span")) {
        if (seen.has(span.className)) span.replaceWith(...span.childNodes);
        seen.add(span.className);
    }
}"""
STILL = "*, *::before, *::after { transition: none !important; }"
BROKEN = "export default { render() { throw Error('x') } }"


def pages(site: Path) -> list[str]:
    found = sorted(str(p.relative_to(site)) for p in site.rglob("*.html"))
    return [p for p in found if not p.startswith(("_static", "pagefind", "genindex"))]


def drag_distance(page, value: int) -> str:
    """Set the slider as a reader's arrow keys do, and read the line that the figure says."""
    slider = page.locator('.q2b input[data-key="distance"]').first
    slider.focus()
    for _ in range(abs(value - int(slider.input_value()))):
        page.keyboard.press("ArrowRight" if int(slider.input_value()) < value else "ArrowLeft")
    page.wait_for_function(
        f"document.querySelector('.q2b-result').textContent.includes('Distance {value}:')"
    )
    return page.locator(".q2b-result").first.text_content()


@pytest.mark.parametrize("way", ["http", "file"])
@pytest.mark.parametrize("name", ["index.html", "notebooks/04_rope.html"])
def test_figures_live_without_a_kernel(site, home, browser, way, name):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/{name}")
        page.wait_for_selector('.q2b-figure[data-live="1"]')
        said = drag_distance(page, 11)
        assert f"the score is {RopeClocks(distance=11).score():.3f}" in said
        angle = RopeClocks(distance=11).angle()
        assert f"cos({angle:.3f})" in said
        assert wrong == []


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_windows_figures_agree_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/notebooks/07_sliding_window_attention.html")
        for name in ("window_explorer", "ring_buffer", "head_window"):
            page.wait_for_selector(f'[data-figure="{name}"][data-live="1"]')

        state = {"log_length": 12, "log_window": 7, "sinks": 2, "layers": 22, "full_layers": 3}
        for key, value in state.items():
            set_slider(page, "window_explorer", key, value)
        python = WindowExplorer(**state)
        share, cache = f"{100 * python.pair_share():.1f}%", python.cache_bytes() / 2**20
        says(page, "window_explorer", share, f"Reach: {python.reach():,} tokens back")
        says(page, "window_explorer", f"Cache: {cache:.1f} MiB", f"{python.flops() / 1e9:.1f} bill")
        set_slider(page, "window_explorer", "full_layers", 0)
        says(page, "window_explorer", f"Reach: {22 * 127:,} tokens back")

        set_slider(page, "ring_buffer", "token", 14)
        set_slider(page, "ring_buffer", "window", 5)
        held = ", ".join(map(str, RingBuffer(token=14, window=5).slots()))
        says(page, "ring_buffer", "Token 14 goes into slot 4", f"Slots hold {held}.")

        set_slider(page, "head_window", "window", 9)
        heads = HeadWindow(window=9)
        says(page, "head_window", f"keeps {100 * heads.kept():.1f}%")
        says(page, "head_window", f"{heads.fitting()} of 336 keep more than 90%")
        page.locator('[data-figure="head_window"] rect[data-cell="16 2"]').click()
        for key, value in {"sinks": 1, "prompt": 1}.items():
            choice = f'[data-figure="head_window"] input[data-key="{key}"][value="{value}"]'
            page.locator(choice).check()
        heads = HeadWindow(window=9, layer=16, head=2, sinks=1, prompt=1)
        mean = f"Over all heads {100 * heads.all_kept().mean():.1f}%"
        says(page, "head_window", f"keeps {100 * heads.kept():.1f}%", mean)
        assert wrong == []


def test_the_window_is_dragged_on_the_map(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/notebooks/07_sliding_window_attention.html")
        page.wait_for_selector('[data-figure="head_window"][data-live="1"]')
        page.locator('[data-figure="head_window"] svg').first.scroll_into_view_if_needed()
        box = page.locator('[data-figure="head_window"] svg').first.bounding_box()
        scale, cell = box["width"] / 330, 282 / 128
        x, y = (box["x"] + scale * (44 + 20.5 * cell), box["y"] + scale * (16 + 60.5 * cell))
        page.mouse.move(x, y - 9)
        page.mouse.down()
        page.mouse.move(x, y)
        page.mouse.up()
        says(page, "head_window", "a window of 41 keeps")
        says(page, "head_window", f"{100 * HeadWindow(window=41).kept():.1f}%")
        assert wrong == []


def test_the_pointer_drags_too(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/index.html")
        page.wait_for_selector('.q2b-figure[data-live="1"]')
        curve = page.locator("svg.q2b-picture").nth(1)
        curve.scroll_into_view_if_needed()
        box = curve.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * (34 + 286 / 2) / 330, box["y"] + 50)
        page.mouse.up()
        page.wait_for_function(
            "document.querySelector('.q2b-result').textContent.includes('Distance 64:')"
        )
        assert (
            f"{RopeClocks(distance=64).score():.3f}" in page.locator(".q2b-result").text_content()
        )
        page.locator("g[data-pair='9']").click()
        page.wait_for_function(
            "document.querySelector('.q2b-result').textContent.includes('Pair 9')"
        )
        assert wrong == []


def test_absurd_state_is_clamped_and_said(home, browser):
    with watched(browser, home) as (page, wrong):
        page.goto(f"{home}/index.html")
        page.wait_for_selector('.q2b-figure[data-live="1"]')
        page.evaluate(ABSURD)
        note = page.locator("#absurd .q2b-note").text_content()
        assert "distance 1000000000 is outside 0 to 128: showing 128" in note
        assert "key_position <script>alert(1)</script> is outside" in note
        assert page.locator("#absurd script").count() == 0
        assert "Pair 0 adds" in page.locator("#absurd .q2b-result").text_content()
        assert wrong == []


def test_a_figure_that_throws_leaves_its_picture(home, browser):
    with watched(browser, home) as (page, wrong):
        page.route(
            "**/figures.js",
            lambda route: route.fulfill(
                body=f"window.QWEN2_BOOK_FIGURES = {{rope_clocks: {BROKEN!r}}};",
                content_type="text/javascript",
            ),
        )
        page.goto(f"{home}/index.html")
        page.wait_for_function("document.body.textContent.includes('could not start')")
        assert page.locator(".q2b-figure > img").count() == 1
        assert any("figure rope_clocks" in line for line in wrong)


@pytest.mark.parametrize("way", ["http", "file"])
def test_no_page_asks_for_anything_outside(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        for name in pages(site):
            page.goto(f"{base}/{name}")
            settled(page)
            if name == "notebooks/04_rope.html":
                page.wait_for_selector("mjx-container svg, mjx-container mjx-math")
        assert wrong == []


def test_small_screens_scroll_one_way_only(site, home, browser):
    with watched(browser, home, viewport=SMALL) as (page, _):
        for name in pages(site):
            page.goto(f"{home}/{name}")
            settled(page)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 375, (name, width)


def test_dark_mode(home, browser):
    with watched(browser, home, viewport=LARGE, color_scheme="dark") as (page, wrong):
        page.goto(f"{home}/notebooks/04_rope.html")
        page.wait_for_selector('.q2b-figure[data-live="1"]')
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        colour = page.evaluate("getComputedStyle(document.querySelector('.q2b')).color")
        red = int(re.findall(r"\d+", colour)[0])
        assert red > 180  # light ink
        chart = page.evaluate("getComputedStyle(document.querySelector('.cell_output img')).filter")
        assert "invert(1)" in chart
        assert wrong == []


@pytest.mark.parametrize("query", ["rotary", "perplexity", *CHINESE])
def test_search_finds_both_languages(home, browser, query):
    with watched(browser, home, viewport=LARGE) as (page, wrong):
        page.goto(f"{home}/search.html?q={query}")
        page.wait_for_selector(".pagefind-ui__result", timeout=15_000)
        assert wrong == []


def test_search_from_disk_says_what_it_needs(site, browser):
    with watched(browser, site.as_uri()) as (page, wrong):
        page.goto(f"{site.as_uri()}/search.html")
        assert page.locator("#search-note").is_visible()
        assert wrong == []


def test_axe_finds_nothing_serious(site, home, browser):
    """Everything in the light theme; in the dark one what a theme can change, the contrast."""
    found = []
    for theme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        with watched(browser, home, viewport=LARGE) as (page, _):
            for name in pages(site):
                page.goto(f"{home}/{name}")
                page.add_style_tag(content=STILL)  # no colour is half-way to the other theme
                page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
                settled(page)
                faults = page.locator("mjx-merror").all_text_contents()
                assert faults == [], f"{name}: a formula that MathJax cannot read"
                page.evaluate(ONE_OF_EACH)
                options = {"resultTypes": ["violations"], **rules}
                for fault in Axe().run(page, options=options).response["violations"]:
                    if fault["impact"] in ("serious", "critical"):
                        found += [
                            f"{theme} {name}: {fault['id']}: {node['target']}"
                            for node in fault["nodes"]
                            if fault["id"] not in THEME_FAULTS
                        ]
    assert found == []


def test_a_chapter_prints(home, browser):
    with watched(browser, home) as (page, _):
        page.goto(f"{home}/notebooks/04_rope.html")
        page.wait_for_selector('.q2b-figure[data-live="1"]')
        assert len(page.pdf()) > 100_000
