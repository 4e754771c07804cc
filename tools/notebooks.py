"""Build the notebooks from their text: `python tools/notebooks.py [--check] [chapters …]`.

Authors edit `notebooks/text/*.md` (MyST Markdown). This takes `# package:` cells from the package,
runs every cell and every claim of the prose, measures the cost, and writes `notebooks/*.ipynb` with
outputs. With --check nothing is run: text, notebook and package are compared. A chapter may be
named by its number. Stored outputs are those of the real checkpoint: set QWEN2_BOOK_CHECKPOINT.
"""

import argparse
import os
import sys
import time

import nbformat
from chapter import (
    COST,
    NOTEBOOKS,
    ChapterError,
    claim_cells,
    fill_from_package,
    from_package,
    line_of,
    text_file,
    text_of,
    with_cost,
    write,
)
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
USED = """import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_maxrss * 1024, used.ru_utime + used.ru_stime)"""


def names(wanted: list[str] | None = None) -> list[str]:
    """The chapters there are, or those that are wanted, by name or by number."""
    known = sorted(path.stem for path in (NOTEBOOKS / "text").glob("*.md"))
    chosen = [name for name in known if not wanted or {name, name.split("_")[0]} & set(wanted)]
    if not chosen:
        sys.exit(f"found no chapter {' '.join(wanted or [])!r}, expected one of: {' '.join(known)}")
    return chosen


def run(name: str) -> tuple[nbformat.NotebookNode, float, int]:
    """Run every cell and claim: the notebook with its outputs, seconds, and peak bytes.

    Where the machine is busy with something else, the kernel's own processor time is less than the
    seconds on the wall, and nearer to what a quiet machine takes.
    """
    notebook = text_of(name)
    trial = claim_cells(notebook, name)
    trial.cells.append(nbformat.v4.new_code_cell(USED))
    began = time.perf_counter()
    client = NotebookClient(
        trial,
        timeout=600,
        record_timing=False,
        store_widget_state=True,
        coalesce_streams=True,  # one output a cell for what is printed piece by piece
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        cell = next(c for c in trial.cells if any(o.output_type == "error" for o in outputs(c)))
        reason = f"{error.ename}: {error.evalue}"
        line = line_of(name, cell.source)
        raise ChapterError(name, line, f"cell stopped\n{cell.source[:300]}\n{reason}") from None
    seconds = time.perf_counter() - began
    peak, processor = map(float, trial.cells.pop().outputs[0].text.split())
    notebook.metadata = trial.metadata
    notebook.metadata.pop("widgets", None)  # a widget's state means nothing without its kernel
    notebook.cells = [cell for cell in trial.cells if "claim" not in cell.metadata.get("tags", [])]
    count = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count  # as if the claims had not been run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if lasting(output)]
        for output in outputs(cell):
            output.get("data", {}).pop(WIDGET_VIEW, None)
            if "execution_count" in output:
                output["execution_count"] = count
    return notebook, min(seconds, processor), int(peak)


def lasting(output: nbformat.NotebookNode) -> bool:
    """Whether an output means something without its kernel: no bare widget, no empty display."""
    data = output.get("data", {"text/plain": "…"})
    bare = WIDGET_VIEW in data and "text/html" not in data
    return not bare and bool(data.get("text/plain", "…").strip())


def outputs(cell: nbformat.NotebookNode) -> list:
    """A code cell's outputs; none for prose."""
    return cell.get("outputs", [])


def build(name: str) -> None:
    """Fill, run, measure, and write the text and the notebook beside their old versions."""
    fill_from_package(name)
    notebook, seconds, peak = run(name)
    text = text_file(name).read_text(encoding="utf-8")
    write(text_file(name), with_cost(text, seconds, peak))
    for cell, written in zip(notebook.cells, text_of(name).cells, strict=True):
        if COST.search(written.source):
            cell.source = written.source
    write(NOTEBOOKS / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
    print(f"{name}: {seconds:.0f} s, peak {peak / 2**30:.1f} GB", flush=True)


def differences(name: str) -> list[str]:
    """Where the notebook is not its text (source, kind or tags), or a cell not the package's."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.exists():
        return [f"notebooks/text/{name}.md:1: it has no notebook yet"]
    notebook, text = nbformat.read(path, 4), text_of(name)
    if len(notebook.cells) != len(text.cells):
        found = f"{len(notebook.cells)} cells, its text has {len(text.cells)}"
        return [f"notebooks/{name}.ipynb: {found}"]
    problems = []
    for ours, theirs in zip(notebook.cells, text.cells, strict=True):
        where = f"notebooks/text/{name}.md:{line_of(name, theirs.source)}"
        if (ours.cell_type, ours.source, ours.metadata) != (
            theirs.cell_type,
            theirs.source,
            theirs.metadata,
        ):
            problems.append(f"{where}: the notebook differs in this cell")
        try:
            if theirs.cell_type == "code" and from_package(name, theirs.source) != theirs.source:
                problems.append(f"{where}: the package's source differs from this cell")
        except ChapterError as error:
            problems.append(str(error))
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", help="names or numbers; left out: all")
    parser.add_argument("--check", action="store_true", help="compare only, run nothing")
    options = parser.parse_args()
    if options.check:
        if problems := [line for name in names(options.chapters) for line in differences(name)]:
            sys.exit("\n".join([*problems, "Run `make notebooks`."]))
        return
    if not os.environ.get("QWEN2_BOOK_CHECKPOINT"):
        sys.exit("Set QWEN2_BOOK_CHECKPOINT: stored outputs come from the real checkpoint.")
    for name in names(options.chapters):
        try:
            build(name)
        except ChapterError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
