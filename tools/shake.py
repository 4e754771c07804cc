"""Which printed numbers would another processor change? `python tools/shake.py [chapters …]`.

Runs the chapters with the products of float32 `linear` layers off by their last bits, as a
processor that adds in another order would have them, and shows each cell that prints something else
than is stored, and each claim that no longer holds; last digits and numbers after a ≈ are forgiven
as in the tests. What is shown should be printed with fewer digits. Two kinds of cells are shown and
are no faults: those that count operations, and those that compare two ways to the last bit, since
only one of them is shaken. Stored outputs are those of the real checkpoint: set
QWEN2_BOOK_CHECKPOINT.
"""

import os
import sys
import tempfile
from collections.abc import Iterator

import nbformat
from chapter import NOTEBOOKS, claim_cells
from nbclient import NotebookClient
from nbval_last_digit import agreed

from notebooks import names

NOISE = """import torch
plain_linear = torch.nn.functional.linear

def shaken_linear(x, weight, bias=None):
    y = plain_linear(x, weight, bias)
    if y.dtype != torch.float32:
        return y
    return y * (1 + 2**-22 * (torch.arange(y.shape[-1], device=y.device) % 3 - 1))

torch.nn.functional.linear = shaken_linear
"""


def texts(cell: nbformat.NotebookNode) -> str:
    """What a cell printed, or the error that ended it."""
    found = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)
    errors = (o.get("evalue", "") for o in cell.outputs)
    return "".join(found) + "".join(errors)


def changed(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str, str]]:
    """Source, stored text and new text of each cell that a shaken run changes."""
    trial = nbformat.from_dict(notebook)
    stored = [texts(cell) for cell in trial.cells if cell.cell_type == "code"]
    trial.cells.insert(0, nbformat.v4.new_code_cell(NOISE))
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(trial, timeout=900, allow_errors=True, resources=resources).execute()
    noise, *cells = [cell for cell in trial.cells if cell.cell_type == "code"]
    assert not noise.outputs, texts(noise)
    for cell, before in zip(cells, stored, strict=True):
        ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
        if not ignored and agreed(before, texts(cell)) != before:
            yield cell.source, before, texts(cell)


def main() -> None:
    if not os.environ.get("QWEN2_BOOK_CHECKPOINT"):
        sys.exit("Set QWEN2_BOOK_CHECKPOINT to a real checkpoint (see checkpoints.md).")
    for name in names(sys.argv[1:]):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
        print(f"{name} ...", flush=True)
        for source, before, after in changed(claim_cells(notebook, name)):
            print(f"  {source.splitlines()[0][:90]}")
            pairs = zip(before.splitlines() or [""], after.splitlines() or [""], strict=False)
            for old, new in (pair for pair in pairs if agreed(*pair) != pair[0]):
                print(f"    stored: {old[:110]}\n    shaken: {new[:110]}")


if __name__ == "__main__":
    main()
