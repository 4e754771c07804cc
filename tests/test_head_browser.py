"""The head browser in Python: stored data, the reader's own prompt, hostile tokens."""

import json
import math

import browser_data
import numpy as np
import pytest
import torch
from test_site_14 import mounted
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qwen2_book import load
from qwen2_book.heads import survey, without_heads
from qwen2_book.trace import ROW_BLOCK, trace
from qwen2_book.widgets import HeadBrowser, head_browser
from qwen2_book.widgets.head_data import unpack

HOSTILE = ["<img src=x onerror=alert(1)>", "\u202eabc", "\x00\x07", "\u0301", "שלום", "</script>"]


@pytest.fixture(scope="module")
def tiny():
    return load(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def long(tiny):
    """Two thousand tokens through the tiny model, and the largest tensor on the way."""
    model, tokenizer = tiny
    text = browser_data.TEXT.read_text(encoding="utf-8")
    ids = (tokenizer.encode(text) * 2)[:2000]

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(out):
                if isinstance(leaf, torch.Tensor):
                    stored = leaf.untyped_storage().nbytes() // 4
                    self.numbers = max(self.numbers, stored)
            return out

    with Largest() as largest:
        seen = survey(model, ids)
    return seen, tokenizer.pieces(ids), largest.numbers


def test_what_is_stored_is_small_and_whole():
    data = head_browser.stored()
    assert head_browser.STORED.stat().st_size < 700_000
    assert (data["layers"], data["heads"], data["kv_heads"]) == (24, 14, 2)
    assert [prompt["name"] for prompt in data["prompts"]] == ["English", "中文", "Python"]
    for prompt in data["prompts"]:
        assert prompt["edges"] == list(range(41)) and prompt["windows"] == list(range(1, 41))
        assert len(prompt["tokens"]) == 40
        assert len(unpack(prompt["kept"])) == 2 * 336 * 40 * 2
        assert len(unpack(prompt["maps"])) == 336 * 40 * 41 // 2
        assert len(unpack(prompt["scores"])) == 4 * 336 * 4
    for number in range(3):
        whole = HeadBrowser(prompt=number, window=40)
        assert (whole.all_kept() == 1).all() and whole.fitting() == 336
        assert (abs(whole.map().sum(1) - 1) < 0.15).all()
        follows = [HeadBrowser(prompt=number, layer=9, head=h).score("follows") for h in range(14)]
        assert max(follows) > 0.5  # every prompt repeats itself, and a head uses it


def test_the_figure_starts_at_the_head_that_copies_best():
    figure = HeadBrowser()
    best = figure.score("follows")
    assert best == max(
        HeadBrowser(layer=layer, head=head).score("follows")
        for layer in (figure.layer, 3, 16)
        for head in range(14)
    )
    assert f"layer {figure.layer}, head {figure.head}" in figure.description()
    assert f"{figure.fitting()}. Beside it" in figure.description()


def test_a_prompt_of_the_readers_own_is_what_was_surveyed(tiny):
    model, tokenizer = tiny
    ids = tokenizer.encode("Alice gave the red ball to Bob. Then Bob gave the red")
    seen, whole = survey(model, ids), trace(model, ids)
    figure = HeadBrowser.of(seen, tokenizer.pieces(ids), "tiny", layer=1, head=2, chunk=5)
    assert figure.data["prompts"][0]["tokens"] == tokenizer.pieces(ids)
    config = model.config
    shape = (config.num_attention_heads, config.num_key_value_heads)
    assert (figure.data["heads"], figure.data["kv_heads"]) == shape
    for window in (1, 3, len(ids)):
        for first in (0, 1):
            figure.window, figure.first = window, first
            expected = seen.kept[first, :, :, window - 1].numpy()
            assert np.allclose(figure.all_kept(), expected, atol=6e-4)
            assert figure.kept() == figure.all_kept()[1, 2]
            sure = abs(expected - 0.9) > 6e-4
            assert ((figure.all_kept() > 0.9) == (expected > 0.9))[sure].all()
            assert abs(figure.fitting() - seen.fitting(window, bool(first))) <= (~sure).sum()
    for name in head_browser.SCORES:
        assert math.isclose(figure.score(name), float(seen.scores[name][1, 2]), abs_tol=6e-4)
    square = whole.attention[1][0, 2].numpy()
    assert np.allclose(figure.map(), square, atol=0.022)
    for query, key in ((5, 0), (5, 5), (len(ids) - 1, 3)):
        figure.query = query
        assert math.isclose(figure.weight(key), float(square[query, key]), abs_tol=0.022)
    zones = [0.0, 0.0, 0.0]
    for i in range(len(ids)):
        for j in range(i + 1):
            zones[min(2, i // 5 - j // 5)] += float(square[i, j]) / len(ids)
    assert np.allclose(figure.zones(), zones, atol=0.005) and min(zones) > 0.02
    figure.chunk = 0
    assert np.allclose(figure.zones(), (1, 0, 0))


def test_a_long_prompt_is_kept_in_cells_and_in_blocks_of_rows(long):
    seen, pieces, largest = long
    layers, heads = seen.scores["first"].shape
    assert largest < heads * 2000 * 2000 / 8  # never all weights of one layer, let alone of all
    assert largest >= heads * ROW_BLOCK * 2000  # a block of them is held, so the measure measures
    figure = HeadBrowser.of(seen, pieces, "tiny", window=700, first=1)
    prompt = figure.data["prompts"][0]
    edges = seen.edges.tolist()
    assert len(prompt["tokens"]) == 48 and prompt["edges"] == edges
    assert prompt["tokens"] == [pieces[edge] for edge in edges[:-1]]
    assert figure.measured() == max(w for w in seen.windows.tolist() if w <= 700) < 700
    place = seen.windows.tolist().index(figure.measured())
    assert np.allclose(figure.all_kept(), seen.kept[1, :, :, place].numpy(), atol=6e-4)
    keys = np.frombuffer(unpack(prompt["last_keys"]), "<i4").reshape(layers, heads, -1)
    shares = np.frombuffer(unpack(prompt["last_shares"]), "<i2").reshape(layers, heads, -1)
    assert (keys == seen.last_keys.numpy()).all()
    assert np.allclose(shares / 1000, seen.last_shares.numpy(), atol=6e-4)
    assert set(prompt["near"]) == {str(key) for key in keys.flatten()}
    for key, (before, token, after) in prompt["near"].items():
        at = int(key)
        assert token == pieces[at] and before + token + after == "".join(
            pieces[max(0, at - 3) : at + 4]
        )
    figure.chunk = 12  # a quarter of the cells: the sums of the survey's own map
    square, at = seen.maps[figure.layer, figure.head].numpy(), np.arange(48) // 12
    rows = square * np.diff(edges)[:, None] / 2000
    expected = [rows[np.minimum(2, at[:, None] - at) == k].sum() for k in range(3)]
    assert np.allclose(figure.zones(), expected, atol=0.005)
    assert len(json.dumps(figure.state())) < 300_000


def test_queries_that_were_not_looked_at_count_for_nothing(tiny):
    model, tokenizer = tiny
    ids = tokenizer.encode("Alice gave the red ball to Bob. Then Bob gave the red")
    seen = survey(model, ids, every=4)
    assert int((seen.maps.sum(-1) == 0).all(0).all(0).sum()) > 0
    figure = HeadBrowser.of(seen, tokenizer.pieces(ids), "tiny", chunk=4)
    assert math.isclose(sum(figure.zones()), 1, abs_tol=1e-6)


def test_bad_input_is_refused_or_moved(tiny):
    model, tokenizer = tiny
    ids = tokenizer.encode("a red ball")
    seen, pieces = survey(model, ids), tokenizer.pieces(ids)
    for wrong in (pieces[:-1], [*pieces, "x"], []):
        with pytest.raises(ValueError, match=rf"^{len(wrong)} pieces for a survey of {len(ids)} "):
            HeadBrowser.of(seen, wrong, "tiny")
    with pytest.raises(ValueError, match="these data hold no losses"):
        HeadBrowser.of(seen, pieces, "tiny", shade="loss")
    figure = HeadBrowser.of(seen, pieces, "tiny", layer=99, window=10**6, query=-1, chunk=math.nan)
    last = model.config.num_hidden_layers - 1
    assert (figure.layer, figure.window, figure.query, figure.chunk) == (last, len(ids), 0, 0)
    for part in ("layer 99", "window 1000000", "query -1", "chunk nan"):
        assert part in figure.note
    assert math.isnan(figure.score("follows"))  # nothing comes twice
    assert "nan" not in figure.description()


def test_the_losses_are_those_of_silenced_heads(tiny):
    model, tokenizer = tiny
    ids = tokenizer.encode("Alice gave the red ball to Bob. Then Bob gave the red")
    base, found = browser_data.losses(model, ids)

    def loss() -> float:
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0, :-1]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])))

    assert math.isclose(base, loss(), abs_tol=1e-5)
    for layer in range(found.shape[0]):
        for head in range(found.shape[1]):
            with without_heads(model, [(layer, head)]):
                assert math.isclose(float(found[layer, head]), loss(), abs_tol=1e-4)
    assert float((found - base).abs().max()) > 0.01


def test_the_stored_losses_are_whole():
    losses = head_browser.stored()["losses"]
    assert len(losses["rises"]) == 336 and losses["text"] == browser_data.TEXT.name
    assert losses["tokens"] == browser_data.LOSS_LENGTH
    assert 0 < losses["base"] < 11.9 and max(losses["rises"]) > 0


@pytest.mark.xdist_group("site")
def test_hostile_tokens_stay_text_and_are_visible(tiny, browser, tmp_path):
    model, tokenizer = tiny
    seen = survey(model, tokenizer.encode("a red ball")[:2] * 3)
    figure = HeadBrowser.of(seen, HOSTILE, "<b>tiny</b>")
    assert all(bad not in figure.as_html() for bad in ("<img src=x", "</script", "<b>"))
    with mounted(browser, figure, tmp_path) as (page, wrong):
        boxes = page.locator("[data-token]").all_text_contents()
        assert boxes[0].startswith("<img␣src=x␣onerror") and boxes[5] == "</script>"
        assert boxes[1:5] == ["⟨U+202E⟩abc", "⟨U+0000⟩⟨U+0007⟩", "◌\u0301", "שלום"]
        assert "(<b>tiny</b>)" in page.locator(".q2b-result").first.text_content()
        assert page.locator(".q2b img, .q2b b, .q2b script").count() == 0
        for token in range(6):
            page.locator(f"[data-token='{token}']").click()
            line = page.locator(".q2b-result").nth(1).filter(has_text=f"Query {token} ")
            line.wait_for()
            assert "\u202e" not in line.text_content() and "\x00" not in line.text_content()
        assert wrong == []


@pytest.mark.xdist_group("site")
def test_a_long_prompt_lives_without_a_server(long, browser, tmp_path):
    seen, pieces, _ = long
    figure = HeadBrowser.of(seen, pieces, "tiny", layer=1, head=1, window=256, chunk=12)
    with mounted(browser, figure, tmp_path) as (page, wrong):
        said = page.locator(".q2b-result").first.text_content()
        assert f"a window of 256 keeps {100 * figure.kept():.1f}%" in said
        zones = [math.floor(100 * share + 0.5) for share in figure.zones()]
        assert f"Chunks of 500: {zones[0]}% in the same chunk, {zones[1]}% in" in said
        assert page.locator("[data-token]").count() == 48
        looks = page.locator(".q2b b").all_text_contents()
        assert len(looks) == seen.last_keys.shape[-1]
        best = f"{100 * float(seen.last_shares[1, 1, 0]):.1f}% at {int(seen.last_keys[1, 1, 0]):,}:"
        assert page.locator(".q2b", has_text=best).count() == 1
        assert page.locator('[data-key="shade"][value="loss"]').count() == 0
        assert wrong == []
