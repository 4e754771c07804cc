"""A headless browser for tests: Debian's Chromium, driven by Playwright."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pictures import find_chromium
from playwright.sync_api import Browser, Page, sync_playwright

SMALL, LARGE = {"width": 375, "height": 800}, {"width": 1280, "height": 900}
MISSING = "no browser found: apt install chromium, or set CHROMIUM to one"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; they skip where there is none."""
    path = find_chromium()
    if not path:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder at an address of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def watched(browser: Browser, home: str, **options) -> Iterator[tuple[Page, list[str]]]:
    """A page, and a list of what went wrong on it: errors, and requests that leave `home`."""
    context = browser.new_context(**options)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)

    def local(route) -> None:
        if route.request.url.startswith((home, "blob:", "data:")):
            route.continue_()
        else:
            wrong.append(f"outside: {route.request.url}")
            route.abort()

    page.route("**/*", local)
    try:
        yield page, wrong
    finally:
        context.close()


def settled(page: Page) -> None:
    """Wait until the figures live, the formulas are set and the fonts are there.

    Not "networkidle": on a busy machine it can stay away for half a minute.
    """
    page.wait_for_function(
        """async () => {
            await window.MathJax?.startup?.promise;
            await document.fonts.ready;
            const figures = [...document.querySelectorAll(".q2b-figure")];
            return figures.every((figure) => figure.dataset.live === "1");
        }""",
        timeout=120_000,
    )


def set_slider(page, figure: str, key: str, value: int) -> None:
    """Move a figure's slider with the arrow keys, as a reader may."""
    slider = page.locator(f'[data-figure="{figure}"] input[data-key="{key}"]')
    slider.focus()
    for _ in range(abs(value - int(slider.input_value()))):
        page.keyboard.press("ArrowRight" if int(slider.input_value()) < value else "ArrowLeft")


def says(page, figure: str, *parts: str) -> None:
    """Wait until the figure's line says all of the parts; the error shows the line."""
    line = page.locator(f'[data-figure="{figure}"] .q2b-result').first
    for _ in range(150):
        if all(part in line.text_content() for part in parts):
            return
        page.wait_for_timeout(100)
    assert [part for part in parts if part not in line.text_content()] == [], line.text_content()
