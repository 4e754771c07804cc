"""References, glossary, notation, fact check: in step with their sources and with the package."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import references

from qwen2_book import Qwen2Config
from qwen2_book.config import RopeScaling
from qwen2_book.costs import cache_bytes, parameters
from qwen2_book.rope import inverse_frequencies

ROOT = Path(__file__).parent.parent
CITATION = re.compile(r"references\.(?:md|html)#([^)\s\"']+)")
HEADINGS = re.compile(r"^### (.+)$", re.MULTILINE)
TOKENS = 151_646  # 151,643 and three control tokens: technical report, section 2.1


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table(text: str) -> list[list[str]]:
    """The cells of all table rows of a page, heads and rules left out."""
    lines = text.splitlines()
    rows = [
        line for n, line in enumerate(lines[:-1]) if line[:1] == "|" and lines[n + 1][:2] != "|-"
    ]
    rows += [line for line in lines[-1:] if line[:1] == "|"]
    return [
        [cell.strip() for cell in row.strip().strip("|").split("|")]
        for row in rows
        if row[:2] != "|-"
    ]


def glossary_terms() -> dict[str, dict[str, str]]:
    """English term -> its Chinese, meaning and chapter (`01` to `20`)."""
    terms = {}
    for english, chinese, meaning, chapter in table(read("glossary.md")):
        number = re.sub(r"\[(\d\d)\]\(.*\)", r"\1", chapter)
        terms[english] = {"zh": chinese, "meaning": meaning, "chapter": number, "link": chapter}
    return terms


def pages() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "notebooks" / "text").glob("*.md")]
    return [*found, *(ROOT / "notebooks").glob("*.ipynb")]


# references


def test_the_page_is_what_the_bibliography_makes():
    command = [sys.executable, str(ROOT / "tools" / "references.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0
    assert [h.strip("`") for h in HEADINGS.findall(read("references.md"))] == [
        entry.key
        for section in references.SECTIONS
        for entry in sorted(references.entries().values(), key=lambda e: e.key)
        if entry.fields["keywords"] == section
    ]


def test_every_citation_has_its_entry():
    keys = set(references.entries())
    cited = {}
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            cells = nbformat.reads(text, 4).cells
            text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        for key in CITATION.findall(text):
            cited[key] = page.name
    assert len(cited) > 20
    assert {key: page for key, page in cited.items() if key not in keys} == {}


def test_entries_are_plausible():
    for entry in references.entries().values():
        fields = entry.fields
        assert (1948 if entry.key == "udhr" else 2009) <= int(fields["year"]) <= 2026, entry.key
        assert fields["url"].startswith("https://"), entry.key
        if arxiv := fields.get("eprint"):
            assert fields["url"] == f"https://arxiv.org/abs/{arxiv}"
            months = (int(fields["year"]) - 2000) * 12 + 12
            at = int(arxiv[:2]) * 12 + int(arxiv[2:4])
            assert 1 <= int(arxiv[2:4]) <= 12
            assert -12 <= months - at <= 24, entry.key  # printed in the year, or the one after
        if (year := re.search(r"[a-z]((?:19|20)\d\d)$", entry.key)) is not None:
            assert year[1] == fields["year"], entry.key
    urls = [entry.fields["url"] for entry in references.entries().values()]
    assert len(urls) == len(set(urls))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@misc{a,\n  title = {A}\n}\n", "expected `  name"),
        ("@misc{a,\n  title = {A},\n}\n", "missing"),
        ("@misc{a,\n  title = {A},\n", "does not end"),
    ],
)
def test_mistakes_in_the_bibliography_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        references.entries(text)


# glossary


def test_the_glossary_is_complete_and_sorted():
    rows = table(read("glossary.md"))
    terms = glossary_terms()
    assert len(rows) == len(terms) >= 60, "a term stands twice"
    assert list(terms) == sorted(terms, key=str.casefold)
    assert len({row["zh"] for row in terms.values()}) == len(terms), "one Chinese, two terms"
    for term, row in terms.items():
        assert re.fullmatch(r"[A-Za-z][\w@ ()/-]*", term), term
        assert re.search(r"[\u4e00-\u9fff]", row["zh"]), term
        assert len(row["meaning"]) > 15, term
        assert row["meaning"].endswith("."), term
        assert row["chapter"] in {f"{n:02}" for n in range(1, 21)}, term


def test_a_chapter_uses_the_terms_that_the_glossary_gives_it():
    for english, row in glossary_terms().items():
        if found := re.search(r"\(notebooks/(.+)\.ipynb\)", row["link"]):
            text = read(f"notebooks/text/{found[1]}.md").lower()
            term = re.sub(r" \(.*\)", "", english).lower()
            assert term.removesuffix("y") in " ".join(text.split()), english


def test_the_glossary_links_to_the_chapters_that_are_there():
    """A link leads to the notebook of its number, and a notebook that is there is linked."""
    there = {path.stem[:2]: path for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    for term, row in glossary_terms().items():
        if row["link"] != row["chapter"]:
            pattern = rf"\[{row['chapter']}\]\(notebooks/{row['chapter']}_\w+\.ipynb\)"
            assert re.fullmatch(pattern, row["link"]), term
        elif row["chapter"] in there:
            raise AssertionError(f"{term}: link {there[row['chapter']].name}")


# notation


def value(text: str) -> float:
    return float(text.replace(",", ""))


def test_sizes_are_those_of_the_configurations():
    small, large, moe = (Qwen2Config.named(f"Qwen2-{s}") for s in ("0.5B", "7B", "57B-A14B"))
    checked = []
    for row in table(read("notation.md")):
        code = row[1].strip("`") if len(row) > 1 else ""
        if len(row) == 5:
            printed, configs = row[3:], (small, large)
        elif len(row) == 4:
            printed, configs = row[3:], (moe,)
        else:
            continue
        for text, config in zip(printed, configs, strict=True):
            computed = eval(code, {"__builtins__": {}}, vars(config))
            assert value(text) == computed, code
        checked.append(code)
    assert len(checked) == 16


def test_all_names_of_shapes_are_explained():
    used = set()
    for module in (ROOT / "qwen2_book").rglob("*.py"):
        for shape in re.findall(r'(?:Float|Int|Bool)\[Tensor, "([^"]*)"\]', module.read_text()):
            used |= set(re.sub(r"[#*]", "", shape).split())
    section = read("notation.md").split("## Shapes")[1]
    explained = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in table(section))))
    assert used - {"_"} - {word for word in used if word.isdigit()} <= explained


# fact check


def facts() -> dict[str, str]:
    parts = re.split(r"^### ", read("fact_check.md"), flags=re.MULTILINE)[1:]
    found = dict(part.split("\n", 1) for part in parts)
    return {title: " ".join(text.split("\n## ")[0].split()) for title, text in found.items()}


def test_every_fact_has_its_three_parts_and_a_source():
    assert len(facts()) >= 18
    for title, text in facts().items():
        assert re.search(
            r"^- \*\*Often said\.\*\* .+ - \*\*(Released|In fact)\.\*\* .+ - \*\*Source\.\*\* .+",
            text,
        ), title
        assert CITATION.search(text), title


def test_counts_of_parameters():
    text = facts()["The 7B has seven billion parameters"]
    seven = parameters(Qwen2Config.named("Qwen2-7B"))
    numbers = [seven["total"], seven["non_embedding"]]
    numbers += [parameters(Qwen2Config.named(f"Qwen2-{s}"))["total"] for s in ("0.5B", "72B")]
    for number in numbers:
        assert f"{number:,}" in text
    rows, hidden = 152_064, 3_584
    assert (rows * hidden, f"{rows:,} × {hidden:,}" in text) == (seven["embedding"], True)
    for printed, key in (("7.07B", "total"), ("5.98B", "non_embedding")):
        assert f"{(seven[key] - rows * hidden) / 1e9:.2f}B" == printed
        assert printed in text
    text = facts()["The mixture of experts is a 14B model"]
    moe = parameters(Qwen2Config.named("Qwen2-57B-A14B"))
    assert f"{moe['active']:,}" in text
    assert f"{moe['total']:,}" in text


def test_bytes_of_the_cache():
    text = facts()["The cache is small because of the window"]
    seven, large = (Qwen2Config.named(f"Qwen2-{size}") for size in ("7B", "72B"))
    grouped, each = cache_bytes(large, 1), cache_bytes(replace(large, num_key_value_heads=64), 1)
    for number in (cache_bytes(seven, 1), grouped, each):
        assert f"{number:,}" in text
    assert each == 8 * grouped


def test_rows_of_the_embedding():
    text = facts()["The vocabulary has 152,064 entries"]
    rows = {Qwen2Config.named(name).vocab_size for name in Qwen2Config.names()}
    assert rows == {151_936, 152_064}
    for number in (*rows, TOKENS, *(r - TOKENS for r in rows)):
        assert f"{number:,}" in text


def test_the_factor_of_yarn():
    text = facts()["128K comes from fine-tuning, or from the window"]
    config = replace(Qwen2Config.named("Qwen2-7B"), rope_scaling=RopeScaling(4.0, 32_768))
    factor = inverse_frequencies(config)[1]
    assert f"{factor:.6f}" in text
    assert f"{factor**2:.6f}" in text
    assert math.isclose(factor, 0.1 * math.log(4) + 1)
    assert f"{int(4.0 * 32_768):,}" in text


def test_all_windows_are_off():
    for name in Qwen2Config.names():
        config = Qwen2Config.named(name)
        assert not config.use_sliding_window
        assert config.max_window_layers == config.num_hidden_layers
        assert set(config.layer_windows) == {None}
