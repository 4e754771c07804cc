"""Authoring: package cells, claims, cost; and every fault of a text named by file and line."""

import chapter
import checks
import nbformat
import pytest

import notebooks

HEAD = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---

"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """An empty book; the function it gives writes a chapter's text."""
    (tmp_path / "notebooks" / "text").mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text("root: index\n")
    (tmp_path / "index.md").write_text("# Home\n")
    for module in (chapter, notebooks):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path / "notebooks")

    def write(body: str, name: str = "01_x"):
        (tmp_path / "notebooks" / "text" / f"{name}.md").write_text(HEAD + body)
        return tmp_path

    return write


def cell(source: str, head: str = "") -> str:
    return f"```{{code-cell}} ipython3\n{head}{source}\n```\n"


GOOD = "# T\n\n<!--cost--><!--/cost-->\n\n" + cell("x = 3\nprint(x)") + "\nIt is 3<!--= x -->.\n"


def test_a_second_build_changes_nothing(book):
    root = book(GOOD + cell("# package: qwen2_book.feedforward.SwiGLU"))
    text = root / "notebooks" / "text" / "01_x.md"
    text.write_text(
        text.read_text().replace(
            "x = 3",
            "from torch import nn\nfrom torch import Tensor\n"
            "import torch.nn.functional as F\nfrom jaxtyping import Float\n"
            "from qwen2_book import Qwen2Config\nx = 3",
        )
    )
    notebooks.build("01_x")
    first = [(root / "notebooks" / f).read_bytes() for f in ("01_x.ipynb", "text/01_x.md")]
    assert b"def forward" in first[1]  # filled from the package
    assert b"Half a minute on two CPU cores" in first[1]
    notebooks.build("01_x")
    assert [(root / "notebooks" / f).read_bytes() for f in ("01_x.ipynb", "text/01_x.md")] == first
    assert notebooks.differences("01_x") == []
    found = nbformat.read(root / "notebooks" / "01_x.ipynb", 4)
    assert [c.execution_count for c in found.cells if c.cell_type == "code"] == [1, 2]
    assert set(found.metadata["language_info"]) > {"version", "name"}  # or Lab marks it modified


def test_text_notebook_and_package_are_compared(book):
    root = book(GOOD)
    assert "no notebook" in notebooks.differences("01_x")[0]
    notebooks.build("01_x")
    text = root / "notebooks" / "text" / "01_x.md"
    text.write_text(text.read_text().replace("print(x)", "print(-x)"))
    assert "01_x.md:17: the notebook differs" in notebooks.differences("01_x")[0]


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        (cell("a = 1") + cell("1 / 0"), 16, "ZeroDivisionError"),
        (cell("# package: qwen2_book.rope.no_such"), 13, "qwen2_book.rope.no_such is not in the"),
        (cell("# package: os.path.join"), 13, "expected a name such as"),
        (cell("x = 4") + "\nIt is 3<!--= x -->.\n", 16, "the text says 3, and x is 4"),
        ("```{code-cell} ipython3\nx = 1\n\n" + cell("y = 2"), 12, "not closed"),
    ],
)
def test_a_fault_is_named_by_file_line_and_reason(book, body, line, reason):
    book(body)
    with pytest.raises(chapter.ChapterError) as caught:
        notebooks.build("01_x")
    assert "notebooks/text/01_x.md:" in str(caught.value)
    assert reason in str(caught.value)
    if reason != "not closed":
        assert f":{line}:" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "value", "same"),
    [
        ("3", 3, True),
        ("3", 4, False),
        ("1,234", 1234, True),
        ("−2.5", -2.46, True),
        ("66.5", 66.535, True),
        ("66.5", 66.6, False),
        ("28%", 0.284, True),
        ("28%", 0.29, False),
        ("30", 30.2, True),
    ],
)
def test_a_claim_is_the_value_rounded(said, value, same):
    assert chapter.agrees(said, value) == same


def test_real_claims_hold_for_the_real_checkpoint_only(book, monkeypatch):
    body = cell("x = 4") + "\nIt is 3<!--= real: x -->.\n"
    book(body)
    monkeypatch.delenv("QWEN2_BOOK_CHECKPOINT", raising=False)
    notebooks.run("01_x")
    monkeypatch.setenv("QWEN2_BOOK_CHECKPOINT", "/somewhere")
    with pytest.raises(chapter.ChapterError, match="the text says 3"):
        notebooks.run("01_x")


def test_the_cost_is_rewritten_only_where_it_has_changed():
    text = "<!--cost--><!--/cost-->"
    measured = chapter.with_cost(text, 70, 2 * 2**30)
    assert "2 minutes on two CPU cores, 2.0 GB of memory, no download." in measured
    assert chapter.with_cost(measured, 50, int(2.3 * 2**30)) == measured  # noise
    assert "8 minutes" in chapter.with_cost(measured, 400, 2**31)
    assert chapter.with_cost("no strip", 70, 2**30) == "no strip"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[a](nowhere.md)", "no such file"),
        ("[a](../index.md#elsewhere)", "no such heading"),
        ("![](../index.md)", "alternative text"),
        ("It has 4,321 heads.", "4,321 is neither computed"),
        (cell("with chart() as axis:\n    axis.plot(x)"), "no assert looks at"),
        (cell("with chart() as axis:\n    assert x"), "image.alt"),
    ],
)
def test_a_fault_of_a_page_is_named_by_file_and_line(book, body, reason):
    root = book("# T\n\n" + body + "\n")
    (found,) = [f for f in checks.findings(root) if reason in f]
    assert found.startswith("notebooks/text/01_x.md:1")


def test_good_pages_pass(book):
    good = "[home](../index.md#home) has 12 lines, `99` too, 31<!--= x --> and $55$.\n" + cell(
        "y = 12"
    )
    assert checks.findings(book("# T\n\n" + good)) == []


def test_code_blocks_are_not_prose(book):
    assert checks.findings(book("# T\n\n```\n[a](nowhere.md) 4321\n```\n")) == []
