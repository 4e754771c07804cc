"""Interactive figures and the chapters inside a running JupyterLab, in a real browser."""

import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from browser import watched
from chapter import NOTEBOOKS

from qwen2_book import load
from qwen2_book.heads import survey
from qwen2_book.widgets import HeadBrowser, RopeClocks

pytestmark = pytest.mark.xdist_group("site")
PROMPT = "Tom gave the drum to Zoe. <b>Zoe</b> gave the drum to 小明。"
SMALL = {
    "small.ipynb": [
        "from qwen2_book.widgets import RopeClocks\nfigure = RopeClocks()\nfigure",
        "print('python says', figure.distance, f'{figure.score():.3f}')",
    ],
    "heads.ipynb": [
        "from qwen2_book import load\nfrom qwen2_book.heads import survey\n"
        "from qwen2_book.widgets import HeadBrowser\nmodel, tokenizer = load(dtype='float32')\n"
        f"ids = tokenizer.encode({PROMPT!r})\n"
        "figure = HeadBrowser.of(survey(model, ids), tokenizer.pieces(ids), 'tiny')\nfigure",
        "print('python says', figure.layer, figure.head, f'{100 * figure.kept():.1f}%')",
    ],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over a folder with one chapter and a small notebook of one figure: its address."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOKS / "04_rope.ipynb", root)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name, sources in SMALL.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / name)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0"]
    command += [
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        f"--ServerApp.root_dir={root}",
    ]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates_class="]
    log = root / ".lab.log"
    private = {"JUPYTER_CONFIG_DIR": str(root / ".config"), "JUPYTER_DATA_DIR": str(root / ".data")}
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | private)
    try:
        for _ in range(120):
            if found := re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab", log.read_text()):
                break
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:  # a busy machine
            server.kill()
            server.wait()


def opened(page, lab: str, name: str) -> None:
    page.goto(f"{lab}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)


def test_a_stored_chapter_shows_its_pictures_and_is_not_marked_modified(lab, browser):
    base = lab.rsplit(":", 1)[0]
    with watched(browser, base, viewport={"width": 1280, "height": 1000}) as (page, _):
        opened(page, lab, "04_rope.ipynb")
        page.wait_for_timeout(3000)
        page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 2600")
        page.wait_for_selector(".jp-OutputArea img[alt^='Thirty-two clocks']", timeout=30_000)
        assert page.locator(".lm-TabBar-tab.jp-mod-dirty").count() == 0


def test_a_figure_lives_and_python_agrees(lab, browser):
    base = lab.rsplit(":", 1)[0]
    with watched(browser, base, viewport={"width": 1280, "height": 1000}) as (page, wrong):
        opened(page, lab, "small.ipynb")
        page.get_by_text("| Idle").wait_for(timeout=60_000)
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        slider = page.locator('.q2b input[data-key="distance"]')
        slider.wait_for(timeout=90_000)
        page.get_by_text("python says 6").wait_for(timeout=60_000)
        slider.focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        expected = f"{RopeClocks(distance=11).score():.3f}"
        page.wait_for_function(
            "document.querySelector('.q2b-result').textContent.includes('Distance 11:')"
        )
        assert expected in page.locator(".q2b-result").text_content()
        page.locator(".jp-CodeCell").nth(1).click()
        page.keyboard.press("Control+Enter")
        page.get_by_text(f"python says 11 {expected}").wait_for(timeout=30_000)
        errors = [line for line in wrong if "figure" in line or "anywidget" in line]
        assert errors == []


def test_the_head_browser_shows_the_readers_own_prompt(lab, browser):
    model, tokenizer = load(dtype="float32")
    ids = tokenizer.encode(PROMPT)
    figure = HeadBrowser.of(survey(model, ids), tokenizer.pieces(ids), "tiny")
    base = lab.rsplit(":", 1)[0]
    with watched(browser, base, viewport={"width": 1280, "height": 1000}) as (page, wrong):
        opened(page, lab, "heads.ipynb")
        page.get_by_text("| Idle").wait_for(timeout=60_000)
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        squares = page.locator(".q2b [data-head]")
        squares.first.wait_for(timeout=120_000)
        page.get_by_text(f"python says {figure.layer} {figure.head} ").wait_for(timeout=60_000)
        assert squares.count() == 24 and page.locator(".q2b [data-token]").count() == len(ids)
        squares.nth(3 * 6 + 1).click()
        figure.layer, figure.head = 3, 1
        expected = f"{100 * figure.kept():.1f}%"
        page.wait_for_function(
            "document.querySelector('.q2b-result').textContent.includes('Layer 3, head 1:')"
        )
        assert f"keeps {expected} of its" in page.locator(".q2b-result").first.text_content()
        page.locator(".jp-CodeCell").nth(1).click()
        page.keyboard.press("Control+Enter")
        page.get_by_text(f"python says 3 1 {expected}").wait_for(timeout=30_000)
        errors = [line for line in wrong if "figure" in line or "anywidget" in line]
        assert errors == []
