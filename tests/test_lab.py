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

from qwen2_book.widgets import RopeClocks

pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over a folder with one chapter and a small notebook of one figure: its address."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOKS / "04_rope.ipynb", root)
    cells = [
        nbformat.v4.new_code_cell(
            "from qwen2_book.widgets import RopeClocks\nfigure = RopeClocks()\nfigure"
        ),
        nbformat.v4.new_code_cell("print('python says', figure.distance, f'{figure.score():.3f}')"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / "small.ipynb")
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
