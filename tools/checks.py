"""Checks of the pages that need no run: `python tools/checks.py`. Each finding names file and line.

Links and their anchors, citations, descriptions of pictures, numbers in the prose, asserted plots,
and the contents list. `make lint` runs them, and so do the notebook and site builds.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".venv", ".git", "_build", "build", "node_modules", ".pytest_cache"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
NUMBER = re.compile(r"(?<![\w.#/-])\d[\d,]*(?:\.\d+)?(?![\w-])")


def pages(root: Path = ROOT) -> list[Path]:
    """Everything written in Markdown: pages, and the texts of the chapters."""
    found = (path for path in root.rglob("*.md"))
    return sorted(path for path in found if not SKIPPED & set(path.relative_to(root).parts))


def prose(text: str) -> str:
    """Markdown without its code, every other character in its place (lines keep their numbers)."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    text = re.sub(r"^---\n.*?^---\n", blank, text, count=1, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(```+|~~~+).*?^\1", blank, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", blank, text)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    heading = re.sub(r"`([^`]*)`|\[([^\]]*)\]\([^)]*\)", r"\1\2", heading.strip().lower())
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-")


def anchors(file: Path) -> set[str]:
    """The anchors of a page or a notebook."""
    if file.suffix == ".ipynb":
        cells = nbformat.read(file, 4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = re.sub(
            r"^(```+).*?^\1", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def line_at(text: str, place: int) -> int:
    return text[:place].count("\n") + 1


def links(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Links to files or anchors that do not exist; pictures without a description."""
    text = prose(page.read_text(encoding="utf-8"))
    base = page.parent.parent if page.parent.name == "text" else page.parent
    for match in LINK.finditer(text):
        bang, words, target = match.groups()
        where = f"{page.relative_to(root)}:{line_at(text, match.start())}"
        if bang and len(words) < 20:
            yield f"{where}: picture {target} needs an alternative text that says what is seen"
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (base / path).resolve() if path else page
        if not file.exists():
            yield f"{where}: link to {target}: there is no such file"
        elif anchor and file.suffix in (".md", ".ipynb") and anchor not in anchors(file):
            yield f"{where}: link to {target}: there is no such heading"


def literals(source: str) -> set[float]:
    """The numbers that stand in code."""
    found = re.findall(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:e\d+)?(?![\w])", source)
    return {float(number.replace("_", "")) for number in found}


def numbers(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Numbers in a chapter's prose that nothing computes, no code contains and no source backs."""
    notebook = jupytext.read(page)
    known = {
        n for cell in notebook.cells if cell.cell_type == "code" for n in literals(cell.source)
    }
    text = page.read_text(encoding="utf-8")
    body = re.sub(r"<!--cost-->.*?<!--/cost-->|<summary>.*?</summary>", "", prose(text))
    body = re.sub(r"\d[\d,.]*\s?%?[^\d\s<]*<!--=.*?-->", "", body)  # computed
    body = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|\((?:ex|chapter)[^)]*\)", "", body, flags=re.DOTALL)
    body = re.sub(r"\*\*\d\d-\d+|[Cc]hapters? \d\d|!\[[^\]]*\]", "", body)  # names; alt texts
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d\. )", body):
        backed = "references.md#" in paragraph or paragraph.lstrip().startswith(("#", "**中文"))
        plain = re.sub(r"\]\([^)]*\)|^\d\. ", "", paragraph.strip())
        for found in NUMBER.findall(plain) if not backed else []:
            value = float(found.replace(",", ""))
            if (value >= 10 or "." in found) and value not in known:
                line = line_at(text, max(text.find(paragraph.strip()[:40]), 0))
                reason = f"{found} is neither computed (<!--= … -->), nor in the code, nor cited"
                yield f"{page.relative_to(root)}:{line}: {reason}"


def plots(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Cells that draw: the data must be asserted, and the picture described."""
    text = page.read_text(encoding="utf-8")
    for cell in jupytext.read(page).cells:
        if cell.cell_type != "code" or not re.search(r"\bchart\(|attention_windows\(", cell.source):
            continue
        where = f"{page.relative_to(root)}:{line_at(text, text.find(cell.source))}"
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            continue
        if "chart(" in cell.source and "assert" not in cell.source:
            yield f"{where}: a chart whose data no assert looks at"
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if len(alt) < 40:
            yield f"{where}: a drawing without mystnb.image.alt in its metadata"


def contents(root: Path = ROOT) -> Iterator[str]:
    """_toc.yml: every entry exists, every notebook is listed."""
    text = (root / "_toc.yml").read_text(encoding="utf-8")
    listed = re.findall(r"(?:root|file): (\S+)", text)
    for entry in listed:
        if not any((root / f"{entry}{kind}").is_file() for kind in (".md", ".ipynb")):
            yield f"_toc.yml:{line_at(text, text.find(entry))}: there is no page {entry}"
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        if f"notebooks/{notebook.stem}" not in listed:
            yield f"_toc.yml:1: {notebook.name} is missing"


def findings(root: Path = ROOT) -> list[str]:
    """Everything that is wrong, in the order of the pages."""
    found = list(contents(root))
    for page in pages(root):
        found += links(page, root)
        if page.parent.name == "text":
            found += [*numbers(page, root), *plots(page, root)]
    return found


def main() -> None:
    if found := findings():
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
