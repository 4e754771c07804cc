"""A chapter's text: its cells with their lines, code taken from the package, claims and cost."""

import importlib
import inspect
import re
from pathlib import Path

import jupytext
import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PACKAGE_LINE = re.compile(r"^# package: (\S+)\s*$")
CLAIM = re.compile(r"([-−]?\d[\d,]*(?:\.\d+)?)(\s?%)?[^\d\s<]*<!--=\s*(.+?)\s*-->")
COST = re.compile(r"(<!--cost-->).*?(<!--/cost-->)", re.DOTALL)


class ChapterError(ValueError):
    """A fault of the text: file, line and reason."""

    def __init__(self, name: str, line: int, reason: str) -> None:
        super().__init__(f"notebooks/text/{name}.md:{line}: {reason}")


def text_file(name: str) -> Path:
    """Where the author writes."""
    return NOTEBOOKS / "text" / f"{name}.md"


def text_of(name: str) -> nbformat.NotebookNode:
    """The chapter as its author wrote it: cells without outputs, each with its line in the text."""
    notebook = jupytext.read(text_file(name))
    notebook.metadata.pop("jupytext", None)
    lines = text_file(name).read_text(encoding="utf-8").split("\n")
    starts = [n for n, line in enumerate(lines, 1) if line.startswith("```{code-cell}")]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if len(starts) != len(code):
        raise ChapterError(name, starts[-1] if starts else 1, "a code cell is not closed by ```")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"  # stable, so that a second build changes nothing
    return notebook


def line_of(name: str, source: str) -> int:
    """The first line of a cell's source in the text, for messages."""
    text = text_file(name).read_text(encoding="utf-8")
    place = text.find(source.strip("\n"))
    return text[:place].count("\n") + 1 if place >= 0 else 1


def package_source(path: str) -> str:
    """The source of `qwen2_book.module.object`, as the package has it."""
    module, _, attribute = path.rpartition(".")
    if not module.startswith("qwen2_book"):
        raise LookupError(f"found {path!r}, expected a name such as qwen2_book.rope.rotate")
    try:
        return inspect.getsource(getattr(importlib.import_module(module), attribute)).rstrip()
    except (ImportError, AttributeError, TypeError, OSError) as error:
        raise LookupError(f"{path} is not in the package: {error}") from error


def from_package(name: str, source: str) -> str:
    """A cell's source with what its first line `# package: …` asks for; others as they are."""
    first = source.split("\n", 1)[0]
    if not (asked := PACKAGE_LINE.match(first)):
        return source
    try:
        return f"{first}\n{package_source(asked[1])}"
    except LookupError as error:
        raise ChapterError(name, line_of(name, source), str(error)) from error


def fill_from_package(name: str) -> None:
    """Write the package's present source into the text's `# package:` cells."""
    text = text_file(name).read_text(encoding="utf-8")
    for cell in text_of(name).cells:
        if cell.cell_type == "code" and (filled := from_package(name, cell.source)) != cell.source:
            text = text.replace(cell.source, filled, 1)
    write(text_file(name), text)


def write(path: Path, text: str) -> None:
    """Replace a file in one move, if its text has changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)


# Claims: a number in the prose, followed by the expression that computes it in an HTML comment:
# "A head has 32<!--= len(frequencies) --> pairs". Run in the notebook's own kernel, after the cell.


def agrees(said: str, value) -> bool:
    """Whether a printed number is the value, rounded: whole numbers exactly, "%" means hundredths.

    A rounded number may be off by three quarters of its last digit, so that another processor's
    last bit is forgiven and a wrong digit is not.
    """
    percent, said = "%" in said, said.replace(",", "").replace("−", "-").strip(" %")
    if isinstance(value, int) and not percent:
        return value == float(said)
    digits = len(said.partition(".")[2])
    return abs(float(value) * (100 if percent else 1) - float(said)) <= 0.75 * 10**-digits


def claims(source: str) -> list[tuple[str, str, str]]:
    """The claims of a Markdown cell: (as it stands in the text, number, expression)."""
    return [(match[0], match[1] + (match[2] or ""), match[3]) for match in CLAIM.finditer(source)]


def claim_cells(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """A copy in which every claim is tested by a hidden cell after its prose.

    Expressions that begin with `real:` hold for the real checkpoint only; `SOURCE_IS_REAL` tells.
    """
    copy = nbformat.from_dict(notebook)
    cells: list = [_hidden(f"import os\n{inspect.getsource(agrees)}")]
    for cell in notebook.cells:
        cells.append(cell)
        for written, said, expression in (
            claims(cell.source) if cell.cell_type == "markdown" else []
        ):
            real, expression = expression.startswith("real:"), expression.removeprefix("real:")
            test = f"agrees({said!r}, {expression})"
            if real:
                test = f"not os.environ.get('QWEN2_BOOK_CHECKPOINT') or {test}"
            where = f"notebooks/text/{name}.md:{line_of(name, written)}"
            reason = f"the text says {said}, and {expression.strip()} is "
            cells.append(_hidden(f"assert {test}, {f'{where}: {reason}'!r} + str({expression})"))
    copy.cells = cells
    return copy


def _hidden(source: str) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["claim"]})
    cell["id"] = f"claim-{abs(hash(source)) % 10**9}"
    return cell


# Cost: measured by the build, rounded, and rewritten only where it has really changed.


def cost_line(seconds: float, peak_bytes: int) -> str:
    """The cost strip's words: minutes and memory, rounded up."""
    minutes = seconds / 60
    steps = (0.5, 1, 2, 3, 5, 8, 12, 15)
    rounded = next((step for step in steps if minutes <= step), round(minutes))
    time = {0.5: "Half a minute", 1: "A minute"}.get(rounded, f"{rounded} minutes")
    return f"{time} on two CPU cores, {-(-peak_bytes // 2**29) / 2:.1f} GB of memory, no download."


def cost_of(line: str) -> tuple[float, float]:
    """Minutes and GB of a cost strip; (0, 0) where it has none yet."""
    found = re.match(r"(Half a|A|\d+) minutes? on two CPU cores, ([\d.]+) GB", line)
    if not found:
        return 0.0, 0.0
    words = {"Half a": 0.5, "A": 1.0}
    return words.get(found[1]) or float(found[1]), float(found[2])


def with_cost(text: str, seconds: float, peak_bytes: int) -> str:
    """The text with its cost strip; the old one stays if it is near enough: machines are noisy."""
    if not (strip := COST.search(text)):
        return text
    stored = strip[0].removeprefix("<!--cost-->").removesuffix("<!--/cost-->")
    old, new = cost_of(stored), cost_of(cost_line(seconds, peak_bytes))
    if old[0] and 0.5 <= old[0] / new[0] <= 2 and abs(old[1] - new[1]) <= 0.5:
        return text
    return COST.sub(rf"\g<1>{cost_line(seconds, peak_bytes)}\g<2>", text, count=1)
