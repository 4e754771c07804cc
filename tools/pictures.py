"""Draw each interactive figure's static picture by its own module: `python tools/pictures.py`.

The module is mounted in headless Chromium in its first state; its drawings are written as one SVG,
`qwen2_book/widgets/<name>.svg`, which notebooks store for GitHub, print and untrusted notebooks.
"""

import os
import re
import shutil
import sys

from playwright.sync_api import Browser, Error, sync_playwright

from qwen2_book import widgets
from qwen2_book.style import GREY, INK, PAPER, SERIES

COLOURS = {"ink": INK, "paper": PAPER, "grey": GREY, **SERIES}
MOUNT = """async ([source, state]) => {
  const subscribers = {};
  const model = {
    get: (key) => state[key],
    set: (key, value) => {
      state[key] = value;
      (subscribers["change:" + key] || []).forEach((f) => f());
    },
    on: (name, f) => (subscribers[name] ||= []).push(f), off() {}, save_changes() {}, send() {},
  };
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: figure } = await import(url);
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  await figure.render({ model, el });
  return [...el.querySelectorAll("svg.q2b-picture")].map((svg) => ({
    box: svg.getAttribute("viewBox"), inner: svg.innerHTML,
  }));
}"""


def find_chromium() -> str | None:
    """The browser: $CHROMIUM, else the system's."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def where(module: str, message: str) -> str:
    """`file:line` of an error, from its place in the module: kit.js stands before the file."""
    kit = len((widgets.base.HERE / "kit.js").read_text(encoding="utf-8").split("\n"))
    line = int(found[1]) if (found := re.search(r"blob:[^\s)]*?:(\d+):\d+", message)) else 1
    return f"kit.js:{line}" if 1 < line <= kit else f"{module}.js:{max(line - kit, 1)}"


def picture(browser: Browser, figure: widgets.Figure) -> str:
    """The figure's drawings side by side, as one SVG with the colours of light pages."""
    page = browser.new_page()
    page.set_content(f"<style>{widgets.STYLE}</style>")
    try:
        parts = page.evaluate(MOUNT, [widgets.source(figure.MODULE), figure.state()])
    except Error as error:
        sys.exit(f"qwen2_book/widgets/{where(figure.MODULE, error.message)}: {error.message}")
    page.close()
    body, left, height = "", 0.0, 0.0
    for part in parts:
        _, _, wide, high = map(float, part["box"].split())
        body += f'<svg x="{left:g}" width="{wide:g}" height="{high:g}">{part["inner"]}</svg>\n'
        left, height = left + wide + 20, max(height, high)
    for name, colour in COLOURS.items():
        body = body.replace(f"var(--q2b-{name})", colour)
    body = body.replace(' style="cursor:pointer"', "").replace("&nbsp;", " ")
    size = f'viewBox="0 0 {left - 20:g} {height:g}" width="{left - 20:g}" height="{height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n{body}</svg>\n'
    )


def figures() -> list[type[widgets.Figure]]:
    """Every figure class of the package."""
    return sorted(widgets.Figure.__subclasses__(), key=lambda kind: kind.MODULE)


def main() -> None:
    chromium = find_chromium()
    if not chromium:
        sys.exit("No browser found: install Chromium (apt install chromium) or set CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for kind in figures():
            text = picture(browser, kind())
            (widgets.base.HERE / f"{kind.MODULE}.svg").write_text(text, encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main()
