"""The survey of all heads against attention held whole; silenced heads against a cut matrix."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2_book import load, optimize
from qwen2_book.config import Qwen2Config
from qwen2_book.dual_chunk import with_dual_chunk
from qwen2_book.heads import SCORES, random_words, survey, windows_up_to, without_heads
from qwen2_book.model import Qwen2
from qwen2_book.trace import mass_in_window, trace

CONFIG = Qwen2Config(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, rope_theta=1e4, dtype="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Qwen2:
    torch.manual_seed(0)
    model = Qwen2(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.ndim == 2 else parameter.add_(0.1)
    return model


def slow_scores(model: Qwen2, ids: list[int], rows: list[int]) -> dict[str, torch.Tensor]:
    """Every score by loops over queries and keys."""
    seen, states = trace(model, ids), {}
    for layer, block in enumerate(model.model.layers):
        part = block.self_attn
        part.register_forward_pre_hook(lambda m, a, n=layer: states.update({n: m.v_proj(a[0])[0]}))
    with torch.no_grad():
        model(torch.tensor([ids]))
    for block in model.model.layers:
        block.self_attn._forward_pre_hooks.clear()
    found = {name: torch.full((2, 4), math.nan) for name in SCORES}
    for layer in range(2):
        norms = states[layer].view(len(ids), 2, 8).norm(dim=-1)
        for head in range(4):
            weights = seen.attention[layer][0, head]
            lists: dict[str, list[float]] = {name: [] for name in SCORES}
            for i in rows:
                row = weights[i]
                same = [j for j in range(i) if ids[j] == ids[i]]
                after = [j + 1 for j in same if j + 1 < i]
                lists["tokens"].append(float((-(row[: i + 1] * row[: i + 1].log()).sum()).exp()))
                if i > 0:
                    valued = row * norms[:, head // 2]
                    lists["first"].append(float(row[0]))
                    lists["first_valued"].append(float(valued[0] / valued.sum()))
                    lists["previous"].append(float(row[i - 1]))
                if same:
                    lists["same"].append(float(row[same].sum()))
                if after:
                    lists["follows"].append(float(row[after].sum()))
            for name, values in lists.items():
                if values:
                    found[name][layer, head] = sum(values) / len(values)
    return found


@given(
    ids=st.lists(st.integers(0, 10), min_size=2, max_size=30),
    every=st.integers(1, 5),
    block=st.integers(1, 2000),
)
@settings(max_examples=25, deadline=None)
def test_scores_windows_and_maps_are_those_of_the_whole_attention(model, ids, every, block):
    module = sys.modules["qwen2_book.trace"]
    kept_size, module.BLOCK_NUMBERS = module.BLOCK_NUMBERS, block
    bins = sys.modules["qwen2_book.heads"]
    kept_bins, bins.BINS = bins.BINS, 7
    try:
        found = survey(model, ids, every, top=3)
    finally:
        module.BLOCK_NUMBERS, bins.BINS = kept_size, kept_bins
    rows = [i for i in range(len(ids)) if (len(ids) - 1 - i) % every == 0]
    for name, expected in slow_scores(model, ids, rows).items():
        torch.testing.assert_close(
            found.scores[name], expected, atol=1e-5, rtol=1e-4, equal_nan=True, msg=name
        )
    whole = torch.stack([trace(model, ids).attention[layer][0] for layer in range(2)])
    picked = whole[:, :, rows]
    for place, window in enumerate(found.windows.tolist()):
        for sinks in (0, 1):
            expected = mass_in_window(picked, rows, window, sinks).mean(-1)
            torch.testing.assert_close(found.kept[sinks, :, :, place], expected, atol=1e-5, rtol=0)
    assert found.kv_heads == 2
    edges = found.edges.tolist()
    assert edges[0] == 0 and edges[-1] == len(ids) and len(edges) == min(7, len(ids)) + 1
    for q in range(len(edges) - 1):
        inside = [i for i in rows if edges[q] <= i < edges[q + 1]]
        for k in range(len(edges) - 1):
            block_of = whole[:, :, inside, edges[k] : edges[k + 1]].sum(-1)
            expected = block_of.mean(-1) if inside else torch.zeros(2, 4)
            torch.testing.assert_close(found.maps[:, :, q, k], expected, atol=1e-5, rtol=0)
    last = whole[:, :, -1].topk(min(3, len(ids)))
    torch.testing.assert_close(found.last_shares, last.values)
    torch.testing.assert_close(whole[:, :, -1].gather(-1, found.last_keys), last.values)


def test_a_sliding_model_is_surveyed_as_it_runs(model):
    ids = [1, 2, 3, 1, 2, 3, 4, 5]
    found = survey(model.with_window(3), ids)
    assert found.fitting(3) == 8  # nothing lies outside
    assert found.fitting(1) == int((found.kept[0, :, :, 0] > 0.9).sum()) < 8


def test_windows():
    assert windows_up_to(5) == [1, 2, 3, 4, 5]
    long = windows_up_to(32_768)
    assert long[:128] == list(range(1, 129)) and long[-1] == 32_768
    assert {256, 512, 1024, 16_384} <= set(long) and len(long) == 128 + 8 * 8
    assert long == sorted(set(long))


@pytest.mark.parametrize(("ids", "every"), [([1], 1), ([], 1), ([1, 2], 0)])
def test_what_cannot_be_surveyed_is_named(model, ids, every):
    with pytest.raises(ValueError, match="expected at least 2 tokens"):
        survey(model, ids, every)


@pytest.mark.parametrize("change", [optimize, lambda model: with_dual_chunk(model, 8, 2)])
def test_models_without_plain_attention_are_named(model, change):
    other = change(model)
    with pytest.raises(ValueError, match=f"found a {type(other).__name__}, expected a Qwen2"):
        survey(other, [1, 2, 3])
    with pytest.raises(ValueError, match="before `optimize`"), without_heads(other, [(0, 0)]):
        pass


def test_a_silenced_head_is_a_cut_in_the_output_matrix(model):
    ids = torch.tensor([[1, 2, 3, 4, 5, 1, 2]])
    twin = Qwen2(CONFIG).eval()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        for layer, head in [(0, 1), (1, 0), (1, 3)]:
            twin.model.layers[layer].self_attn.o_proj.weight[:, 8 * head : 8 * head + 8] = 0
        before = model(ids)
        with without_heads(model, [(0, 1), (1, 0), (1, 3)]):
            silent = model(ids)
        torch.testing.assert_close(silent, twin(ids))
        assert (silent - before).abs().max() > 0.01
        assert torch.equal(model(ids), before)  # nothing stays behind


@pytest.mark.parametrize("head", [(2, 0), (0, 4), (-1, 0)])
def test_heads_that_do_not_exist(model, head):
    with (
        pytest.raises(ValueError, match="expected 0 to 1, 0 to 3"),
        without_heads(model, [(0, 0), head]),
    ):
        pass


def test_random_words():
    _, tokenizer = load()
    words = random_words(tokenizer, 12, seed=1)
    assert len(set(words)) == 12 and words == random_words(tokenizer, 12, seed=1)
    assert words != random_words(tokenizer, 12, seed=2)
    for piece in tokenizer.pieces(words):
        assert piece.startswith(" ") and piece[1:].isalpha() and 4 <= len(piece[1:]) <= 8
    with pytest.raises(ValueError, match="were asked for"):
        random_words(tokenizer, 10**6, seed=0)
