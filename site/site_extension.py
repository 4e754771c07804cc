"""The website's own parts: mathematics and figures from local files, and the home page's map."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import yaml
from docutils import nodes
from sphinx.application import Sphinx

from qwen2_book import widgets

ROOT = Path(__file__).resolve().parent.parent
MATHJAX_FILES = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions", "a11y", "sre")


def copy_mathjax(out: Path) -> None:
    """MathJax 3.2.2 from the package sphinx-mathjax-offline, less what no page asks for."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("no package sphinx-mathjax-offline: pip install '.[site]'")
    source = Path(next(iter(spec.submodule_search_locations))) / "static" / "mathjax"
    for name in MATHJAX_FILES:
        if (source / name).is_dir():
            shutil.copytree(source / name, out / "_static" / "mathjax" / name, dirs_exist_ok=True)
        else:
            (out / "_static" / "mathjax").mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, out / "_static" / "mathjax" / name)


def write_figures(static: Path) -> None:
    """All figure modules in one script, so that pages opened from disk find them too."""
    modules = {name: widgets.source(name) for name in widgets.names()}
    text = json.dumps(modules, ensure_ascii=True)
    static.mkdir(parents=True, exist_ok=True)
    (static / "figures.js").write_text(f"window.QWEN2_BOOK_FIGURES = {text};\n", encoding="utf-8")
    (static / "figures.css").write_text(widgets.STYLE, encoding="utf-8")


def reading_minutes(notebook: Path) -> int:
    """Words at 200 a minute and half a minute a code cell, to the next five minutes."""
    cells = nbformat.read(notebook, 4).cells
    words = sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")
    code = sum(c.cell_type == "code" for c in cells)
    return -(-round(words / 200 + code / 2) // 5) * 5


def chapter_map() -> str:
    """The table of the chapters that exist, from site/chapters.yml."""
    chapters = yaml.safe_load((ROOT / "site" / "chapters.yml").read_text(encoding="utf-8"))
    lines = ["| | the question | you need | difficulty | time |", "|---|---|---|---|---|"]
    for chapter in chapters:
        path = ROOT / "notebooks" / f"{chapter['file']}.ipynb"
        if path.exists():
            dots = "●" * chapter["difficulty"] + "○" * (3 - chapter["difficulty"])
            link = f"[{chapter['title']}](notebooks/{chapter['file']}.ipynb)"
            time = f"{reading_minutes(path)} min"
            lines.append(
                f"| {link} | {chapter['question']} | {chapter['needs']} | {dots} | {time} |"
            )
    return "\n".join(lines)


def fill_home(app: Sphinx, name: str, source: list[str]) -> None:
    """The home page's live figure and chapter map stand in its text as two comments."""
    if name == "index":
        figure = f"<div>\n{widgets.RopeClocks().as_html()}\n</div>"
        source[0] = source[0].replace("<!-- figure -->", figure)
        source[0] = source[0].replace("<!-- chapters -->", chapter_map())


def mark_chinese(app: Sphinx, tree: nodes.document, name: str) -> None:
    """Say `lang` where a paragraph is Chinese, for voices, fonts and line breaks."""
    for paragraph in tree.findall(nodes.paragraph):
        text = paragraph.astext()
        if len(re.findall(r"[\u4e00-\u9fff]", text)) > 0.4 * len(text):
            paragraph["classes"].append("chinese")
            for part in list(paragraph.findall(nodes.Text)):  # no space where a line ended
                joined = re.sub(r"(?<=[^\x00-\x7f])\n(?=[^\x00-\x7f])", "", part.astext())
                part.parent.replace(part, nodes.Text(joined))


def tidy_page(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """`lang` for Chinese paragraphs; no script of thebe (it runs code on outside servers)."""
    if "body" in context:
        context["body"] = context["body"].replace(
            '<p class="chinese">', '<p class="chinese" lang="zh-CN">'
        )
    for kind in ("script_files", "css_files"):
        kept = [
            f for f in context[kind] if "thebe" not in f"{f}{getattr(f, 'attributes', '')}".lower()
        ]
        context[kind] = kept


def finish(app: Sphinx, error: Exception | None) -> None:
    """Copy what the pages load."""
    if error is None:
        copy_mathjax(Path(app.outdir))
        write_figures(Path(app.outdir) / "_static")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", fill_home)
    app.connect("doctree-resolved", mark_chinese)
    app.connect("html-page-context", tidy_page, priority=900)
    app.connect("build-finished", finish)
    app.add_css_file("figures.css")
    app.add_js_file("figures.js", loading_method="defer")
    app.add_js_file("host.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
