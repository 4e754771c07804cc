"""The figure of the parity ladder in Python: what it stores and what it names."""

import json
import math

import pytest

from qwen2_book.widgets import ParityLadder, parity_ladder


def test_packing_keeps_three_digits():
    given = [0.0, 3e-9, 1e-8, 2.5e-7, 1e-4, 0.02345, 1.0, 7.7, 63.0]
    text = parity_ladder.pack(given)
    assert len(text) == 2 * len(given)
    assert not set(text) & set('\\"')
    again = parity_ladder.unpack(text)
    assert again[:3] == [0.0, 0.0, 0.0]
    for value, kept in zip(given[3:], again[3:], strict=True):
        assert math.isclose(value, kept, rel_tol=0.002)


def test_the_stored_runs_are_small_and_whole():
    data = parity_ladder.stored()
    assert parity_ladder.STORED.stat().st_size < 40_000
    assert len(data["order"]) == 8
    assert set(data["order"]) == set(data["bugs"])
    assert set(data["runs"]) == {f"{b}, {layer}" for b in data["bugs"] for layer in data["planted"]}
    for name, run in data["runs"].items():
        layers = data["layers"] - int(name.rsplit(", ", 1)[1])
        assert len(run["distances"]) == 2 * (layers * len(parity_ladder.PARTS) + 2)
        assert 0 <= run["changed"] <= data["tokens"]
        assert 1 < run["perplexity"] < 1000


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    ("bug", "part"),
    [
        ("no value bias", ".self_attn.v_proj"),
        ("heads tiled", ".self_attn.o_proj, input"),
        ("pairs of neighbours", ".self_attn.o_proj, input"),
        ("sees one ahead", ".self_attn.o_proj, input"),
        ("gate and up swapped", ".mlp.down_proj, input"),
        ("positions from 1", None),
    ],
)
def test_each_bug_is_named_where_it_was_planted(bug, part, at):
    place = parity_ladder.stored()["order"].index(bug)
    figure = ParityLadder(bug=place, at=at)
    layer = figure.data["planted"][at]
    found = figure.first()
    assert (found and found[0]) == (part and f"model.layers.{layer}{part}")
    distances = figure.distances()
    assert len(distances) == figure.data["layers"] * len(parity_ladder.PARTS) + 2
    before = [off for name, off in distances.items() if name.startswith("model.layers.")]
    assert not any(before[: layer * len(parity_ladder.PARTS)])
    said = figure.description()
    assert (found[0] if found else "No tensor is further off") in said


def test_the_tolerance_moves_the_first():
    names = [ParityLadder(bug=0, at=1, tolerance=t).first() for t in (-75, -40, 0)]
    assert names[0][0] == "model.layers.8.input_layernorm"
    assert names[1][0] != names[0][0]
    assert names[2] is None


def test_bad_numbers_are_clamped():
    figure = ParityLadder(bug=99, at=-1, tolerance=5, look=1000)
    assert (figure.bug, figure.at, figure.tolerance, figure.look) == (7, 0, 0, 23)
    assert "bug 99" in figure.note


def test_the_stored_run_is_the_models(real_checkpoint):
    """One bug in one layer, measured again."""
    import parity_bugs
    import torch

    from qwen2_book import load
    from qwen2_book.parity import record

    model, tokenizer = load(real_checkpoint, dtype="float32", device="cpu")
    ids = torch.tensor([tokenizer.encode(parity_bugs.TEXT)])
    sound = record(model, ids)
    stored = json.loads(parity_ladder.STORED.read_text(encoding="utf-8"))
    assert parity_bugs.perplexity(sound["logits"], ids) == pytest.approx(stored["perplexity"], 1e-3)
    found = parity_bugs.measured(model, ids, sound, "gate and up swapped", 16)
    run = stored["runs"]["gate and up swapped, 16"]
    assert found["perplexity"] == pytest.approx(run["perplexity"], rel=1e-3)
    kept = parity_ladder.unpack(run["distances"])
    for new, old in zip(found["distances"], kept, strict=True):
        assert new == pytest.approx(old, rel=0.02, abs=1e-5)
    again = record(model, ids)["logits"]
    assert torch.equal(again, sound["logits"])  # the bug is out again
