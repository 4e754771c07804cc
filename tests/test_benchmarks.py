"""The benchmarks' pages are those of their stored runs, and the READMEs show the same ratios."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import engines, quality, steps
from qwen2_book import load
from qwen2_book.checkpoint import source

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"


def stored(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", [engines, quality, steps], ids=lambda module: module.__name__)
def test_the_page_is_what_the_run_gave(module):
    name = module.__name__.rpartition(".")[2]
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == module.page(stored(name))


@pytest.mark.parametrize("folder", ["older", "newer"])
def test_so_are_those_of_other_processors(folder):
    page = (FOLDER / folder / "engines.md").read_text(encoding="utf-8")
    assert page == engines.page(stored(f"{folder}/engines"))


@pytest.mark.parametrize("readme", ["README.md", "benchmarks/README.md"])
def test_the_readme_shows_the_stored_ratios(readme):
    assert engines.short(stored("engines")) in (ROOT / readme).read_text(encoding="utf-8")


def test_a_ratio_is_that_of_a_round():
    assert engines.ratio([2.0, 8.0, 3.0], [[1.0, 2.0, 1.0], [0.5, 1.0, 2.0]]) == "2.00 (1.50–4.00)"
    assert steps.over([2.0, 9.0, 3.0], [1.0, 3.0, 1.0]) == "3.00 (2.00–3.00)"


def test_the_order_turns_round_and_the_first_round_is_left_out():
    seen = []
    works = {name: lambda name=name: seen.append(name) or float(len(seen)) for name in "abc"}
    found = steps.in_turn(works, 2)
    assert "".join(seen) == "cba" + "abc" + "cba"
    assert found == {"a": [4.0, 9.0], "b": [5.0, 8.0], "c": [6.0, 7.0]}


def test_the_slow_ways_give_the_same_logits():
    """What the steps are measured against is the same model, done the plain way."""
    model, _ = load(device="cpu", dtype="float32")
    ids = torch.arange(2, 22)[None]
    logits = []
    for variant in (
        steps.Variant(model),
        steps.Variant(model, steps.GrowingCache, copies=True),
        steps.Variant(model, copies=True),
    ):
        cache = variant.cache(model.config, 1, 20)
        with torch.no_grad(), variant.running():
            parts = ids.split([15, 1, 1, 1, 2], 1)
            logits.append(torch.cat([model(part, cache) for part in parts], 1))
    assert torch.equal(logits[0], model(ids)) or torch.allclose(logits[0], model(ids), atol=1e-4)
    assert all(torch.allclose(each, logits[0], atol=1e-4) for each in logits)


def test_the_gpus_engine_uses_its_cache_again():
    """The variant that records its steps, on this CPU; both texts at once would not fit."""
    run = engines.ours(source.TINY, engines.GRAPH)
    for _ in range(2):
        assert all(seconds > 0 for seconds in run(torch.arange(2, 22).view(2, 10), 150))
    name = f"qwen2_book {engines.GRAPH}"
    assert name in engines.NAMES and name not in engines.there(source.TINY)
