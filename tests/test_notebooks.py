"""The notebooks: run again and compared, in step with their text, few cells left out."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from notebooks import NOTEBOOKS, differences

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def test_there_are_notebooks_and_each_has_its_text():
    assert NAMES
    assert sorted(path.stem for path in (NOTEBOOKS / "text").glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_in_step_with_the_text(name):
    assert differences(name) == []


@pytest.mark.parametrize("name", NAMES)
def test_few_cells_are_left_out_and_none_failed(name):
    code = [c for c in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    ignored = [c for c in code if "nbval-ignore-output" in c.metadata.get("tags", [])]
    assert len(ignored) <= len(code) / 10
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")


def run_again(name: str, folder: Path, compare_real: bool) -> None:
    """nbval, strict; cells that show the real checkpoint are compared only where it is there."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "real-checkpoint" in tags and not compare_real:
            cell.metadata["tags"] = [*tags, "nbval-ignore-output"]
    nbformat.write(notebook, folder / f"{name}.ipynb")
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    if not compare_real:
        environment.pop("QWEN2_BOOK_CHECKPOINT", None)
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(folder), "-c", os.devnull, str(folder / f"{name}.ipynb")]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize("name", NAMES)
def test_on_the_tiny_checkpoint(name, tmp_path):
    run_again(name, tmp_path, compare_real=False)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_real_checkpoint(name, tmp_path, real_checkpoint):
    run_again(name, tmp_path, compare_real=True)
