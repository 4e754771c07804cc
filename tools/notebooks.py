"""Build the notebooks from their text: `python tools/notebooks.py [--check] [names …]`.

Authors edit `notebooks/text/*.md` (MyST Markdown); this runs every cell and writes
`notebooks/*.ipynb` with outputs. With --check nothing is run: the cells of both are compared.
Stored outputs are those of the real checkpoint, so a build needs QWEN2_BOOK_CHECKPOINT.
"""

import argparse
import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def text_of(name: str) -> nbformat.NotebookNode:
    """The chapter as its author wrote it: cells without outputs."""
    notebook = jupytext.read(NOTEBOOKS / "text" / f"{name}.md")
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"  # stable, so that a second build changes nothing
    return notebook


def build(name: str) -> None:
    """Run the chapter and write the notebook beside its old version, then in its place."""
    notebook = text_of(name)
    client = NotebookClient(
        notebook,
        timeout=600,
        record_timing=False,
        store_widget_state=True,
        coalesce_streams=True,  # one output a cell for what is printed piece by piece
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    client.execute()
    notebook.metadata.pop("widgets", None)  # a widget's state means nothing without its kernel
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
    part = NOTEBOOKS / f".{name}.part"
    nbformat.write(notebook, part)
    part.replace(NOTEBOOKS / f"{name}.ipynb")


def differences(name: str) -> list[str]:
    """The cells in which the notebook is not its text: source, kind or tags."""
    notebook, text = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4), text_of(name)
    if len(notebook.cells) != len(text.cells):
        return [f"{name}: {len(notebook.cells)} cells, its text has {len(text.cells)}"]
    return [
        f"{name}: cell {number} differs from its text: {ours.source[:60]!r}"
        for number, (ours, theirs) in enumerate(zip(notebook.cells, text.cells, strict=True))
        if (ours.cell_type, ours.source, ours.metadata)
        != (theirs.cell_type, theirs.source, theirs.metadata)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="chapters; left out: all")
    parser.add_argument("--check", action="store_true", help="compare only, run nothing")
    options = parser.parse_args()
    names = options.names or sorted(path.stem for path in (NOTEBOOKS / "text").glob("*.md"))
    if options.check:
        if problems := [line for name in names for line in differences(name)]:
            sys.exit("\n".join([*problems, "Run `make notebooks`."]))
        return
    if not os.environ.get("QWEN2_BOOK_CHECKPOINT"):
        sys.exit("Set QWEN2_BOOK_CHECKPOINT: stored outputs come from the real checkpoint.")
    for name in names:
        print(f"running {name} …", flush=True)
        build(name)


if __name__ == "__main__":
    main()
