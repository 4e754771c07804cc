"""The notebooks: run again and compared, in step with their text, few cells left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import chapter
import nbformat
import pytest
import shake
from nbclient import NotebookClient
from nbval_last_digit import agreed

import notebooks

NAMES = sorted(path.stem for path in chapter.NOTEBOOKS.glob("*.ipynb"))
TOOLS = chapter.NOTEBOOKS.parent / "tools"


def test_there_are_notebooks_and_each_has_its_text():
    assert NAMES
    assert sorted(path.stem for path in (chapter.NOTEBOOKS / "text").glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_in_step_with_the_text_and_the_package(name):
    assert notebooks.differences(name) == []


@pytest.mark.parametrize("name", NAMES)
def test_few_cells_are_left_out_and_none_failed(name):
    notebook = nbformat.read(chapter.NOTEBOOKS / f"{name}.ipynb", 4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    ignored = [c for c in code if "nbval-ignore-output" in c.metadata.get("tags", [])]
    assert len(ignored) <= len(code) / 10
    assert not any("nbval-skip" in c.metadata.get("tags", []) for c in code)
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_is_measured(name):
    text = chapter.text_file(name).read_text(encoding="utf-8")
    minutes, memory = chapter.cost_of(chapter.COST.search(text)[0].removeprefix("<!--cost-->"))
    assert 0 < minutes <= 3
    assert 0 < memory <= 4


@pytest.mark.parametrize("name", [name for name in NAMES if name[0].isdigit()])
def test_a_chapter_has_its_size_and_its_parts(name):
    text = chapter.text_file(name).read_text(encoding="utf-8")
    cells = chapter.text_of(name).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    prose = (cell.source for cell in cells if cell.cell_type == "markdown")
    unread = re.compile(r"<!--.*?-->|```.*?```|\$\$.*?\$\$", re.S)  # claims, code, formulas
    words = sum(len(unread.sub("", each).split()) for each in prose)
    assert 2000 <= words <= 4500
    assert 25 <= len(cells) <= 110
    parts = ("**Question.**", "**Cost.**", "**Before you start**", "**中文摘要。**", "Fact check")
    for part in (*parts, "## Exercises", "## Summary", "## Further reading", "**Predict:**"):
        assert part in text, part
    summary = text.split("**中文摘要。**")[1].split("\n\n")[0].replace("\n", "")
    assert 120 <= len(summary) <= 260
    assert any(cell.source.startswith("# package: ") for cell in code)
    assert all(len(cell.source.splitlines()) <= 20 or "# package" in cell.source for cell in code)


def run_again(name: str, folder: Path, compare_real: bool) -> None:
    """nbval, strict, with the claims of the prose; what shows the real checkpoint needs it."""
    notebook = nbformat.read(chapter.NOTEBOOKS / f"{name}.ipynb", 4)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "real-checkpoint" in tags and not compare_real:
            cell.metadata["tags"] = [*tags, "nbval-ignore-output"]
    nbformat.write(chapter.claim_cells(notebook, name), folder / f"{name}.ipynb")
    path = os.pathsep.join([str(TOOLS), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": path}
    if not compare_real:
        environment.pop("QWEN2_BOOK_CHECKPOINT", None)
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "nbval_last_digit", "--rootdir", str(folder), "-c", os.devnull]
    done = subprocess.run(
        [*command, str(folder / f"{name}.ipynb")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize("name", NAMES)
def test_on_the_tiny_checkpoint(name, tmp_path):
    run_again(name, tmp_path, compare_real=False)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_real_checkpoint(name, tmp_path, real_checkpoint):
    run_again(name, tmp_path, compare_real=True)


def test_the_comparison_sees_what_it_should(tmp_path):
    """A changed digit, a changed word, a changed whole number: each must fail."""
    near, other = ("x 0.35 a 7", True), ("x 0.36 a 7", "y 0.34 a 7", "x 0.34 a 8")
    for stored, ok in (near, *((text, False) for text in other)):
        cell = nbformat.v4.new_code_cell("print('x 0.34 a 7')", execution_count=1)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{stored}\n")]
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "small.ipynb")
        command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "nbval_last_digit"]
        done = subprocess.run(
            [*command, "-c", os.devnull, str(tmp_path / "small.ipynb")],
            env=os.environ | {"PYTHONPATH": str(TOOLS)},
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert (done.returncode == 0) == ok, stored


@pytest.mark.parametrize(
    ("stored", "new", "same"),
    [
        ("loss 1.234", "loss 1.235", True),
        ("loss 1.234", "loss 1.236", False),
        ("loss 1.234", "loss 1.2345", False),
        ("share 28%", "share 29%", True),
        ("share 28%", "share 30%", False),
        ("token 28", "token 29", False),
        ("  9.99 x", " 10.00 x", True),
        ("1.2e-05", "1.3e-05", True),
        ("1.2e-05", "1.2e-04", False),
        ("-0.10", "0.10", False),
        ("off by ≈2.2e+05", "off by ≈3e+05", True),
        ("off by ≈2.2e+05", "off by ≈3.4e+05", False),
        ("off by ≈2.2e+05", "off by 2.2e+05", False),
        ("perplexity ≈85", "perplexity ≈84", True),
        ("perplexity 85", "perplexity 84", False),
        ("about ≈28%", "about ≈28", False),
        ("found 5.", "found 6.", False),
        ("a 1.0 b 2.0", "a 1.0", False),
        ("layer 3, head 4", "layer 3, head 5", False),
    ],
)
def test_only_the_last_digit_may_differ(stored, new, same):
    assert (agreed(stored, new) == stored) == same


def test_a_shaken_run_finds_digits_that_mean_nothing():
    """A difference of two near numbers is noise; a number itself, to one digit, is not."""
    setup = "import torch\ntorch.manual_seed(0)\nx, w = torch.randn(4, 64), torch.randn(8, 64)"
    noise = "(torch.nn.functional.linear(x, w) - (x.double() @ w.double().T)).abs().max()"
    size = "torch.nn.functional.linear(x, w).abs().max()"
    sources = [setup, f"print(f'{{{noise}:.2e}}')", f"print(f'{{{size}:.1f}}')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    NotebookClient(notebook).execute()
    ((source, before, after),) = shake.changed(notebook)
    assert source == sources[1] and float(before) < float(after)
