"""The window, proven by a grid: every way to run the model against one dense mask."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import DENSE, random_ids, random_model, replace

from qwen2_book.cache import ROLLBACK, KVCache
from qwen2_book.config import FULL, SLIDING
from qwen2_book.model import Qwen2
from qwen2_book.quantize import optimize
from qwen2_book.trace import trace
from qwen2_book.window import (
    Band,
    band,
    banded_attention,
    count_pairs,
    flex_attention,
    receptive_field,
    visible,
)

LENGTH = 90
PADDING = (0, 3, 20)  # columns of padding on the left of each row


@torch.no_grad()
def dense_logits(model: Qwen2, ids: torch.Tensor, sinks: int = 0) -> torch.Tensor:
    """The slow, obvious model, one row, no padding: scores, a mask by definition, softmax."""
    config = model.config
    n, heads, kv = ids.shape[1], config.num_attention_heads, config.num_key_value_heads
    frequencies = config.rope_theta ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
    angles = torch.arange(n)[:, None] * torch.cat((frequencies, frequencies))
    x = model.model.embed_tokens(ids)[0]

    def turned(y):
        first, second = y.chunk(2, -1)
        return y * angles.cos() + torch.cat((-second, first), -1) * angles.sin()

    def norm(y, layer):
        return y / (y.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * layer.weight

    for layer, window in zip(model.model.layers, config.layer_windows, strict=True):
        mask = torch.zeros(n, n, dtype=torch.bool)
        for i, j in itertools.product(range(n), range(n)):
            mask[i, j] = i - j >= 0 and (window is None or i - j < window or j < sinks)
        part, y = layer.self_attn, norm(x, layer.input_layernorm)
        query, key, value = (
            p(y).view(n, -1, config.head_dim).transpose(0, 1)
            for p in (part.q_proj, part.k_proj, part.v_proj)
        )
        key, value = (t.repeat_interleave(heads // kv, 0) for t in (turned(key), value))
        scores = turned(query) @ key.transpose(1, 2) / config.head_dim**0.5
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        x = x + part.o_proj((weights @ value).transpose(0, 1).flatten(1))
        y = norm(x, layer.post_attention_layernorm)
        x = x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))
    return norm(x, model.model.norm) @ model.lm_head.weight.T


BASE = random_model(DENSE)
IDS = random_ids(len(PADDING), LENGTH, DENSE)

# W = 1, W < n, W = n, W > n; a prefill longer than W; with W + ROLLBACK < n the ring wraps around.
WINDOWS = (None, 1, 2, 7, 40, LENGTH - 1, LENGTH, LENGTH + 1, 500)
CACHES = ("no cache", "cache", "ring cache")
STEPS = {
    "one pass": [LENGTH],
    "token by token": [1] * LENGTH,
    "chunks of 5": [5] * 18,
    "chunks of 33": [33, 33, 24],
    "chunks of 34": [34, 34, 22],
    "long, then single": [60] + [1] * 30,
    "mixed": [1, 40, 2, 1, 35, 11],
}
KINDS = {  # which of the four layers slide
    "all slide": (SLIDING,) * 4,
    "upper slide": (FULL, FULL, SLIDING, SLIDING),
    "alternate": (SLIDING, FULL) * 2,
}


def windowed(window: int | None, kind: str = "all slide", sinks: int = 0) -> Qwen2:
    model = BASE.with_window(window, sinks)
    model.config = replace(model.config, layer_types=KINDS[kind])
    return model


_expected: dict = {}


def expected(window, kind, sinks, row, padding) -> torch.Tensor:
    key = window, kind, sinks, row, padding
    if key not in _expected:
        model = windowed(window, kind, sinks)
        _expected[key] = dense_logits(model, IDS[row : row + 1, padding:], sinks)
    return _expected[key]


def meaningless(window, cache, steps, sinks) -> str | None:
    """Combinations that do not exist, with the reason."""
    if cache == "no cache" and steps != "one pass":
        return "without a cache there is one pass only"
    if window is None and (cache == "ring cache" or sinks):
        return "full attention has neither a ring nor sinks"
    return None


@torch.no_grad()
def check(window, cache, steps, padded, kind="all slide", sinks=0, fast=False):
    model = windowed(window, kind, sinks)
    model = optimize(model, "float32") if fast else model
    mask = torch.ones_like(IDS, dtype=torch.bool)
    if padded:
        for row, padding in enumerate(PADDING):
            mask[row, :padding] = False
    kept = None
    if cache != "no cache":
        kept = KVCache(model.config, len(PADDING), LENGTH, ring=cache == "ring cache")
    parts, start = [], 0
    for size in STEPS[steps]:
        part = slice(start, start + size)
        part_mask = mask[:, part] if padded else None
        parts.append(model(IDS[:, part], kept, part_mask))
        start += size
    logits = torch.cat(parts, 1)
    assert not logits.isnan().any()
    for row, padding in enumerate(PADDING):
        padding = padding if padded else 0
        difference = logits[row, padding:] - expected(window, kind, sinks, row, padding)
        assert difference.abs().max() < 2e-4, (row, padding)


GRID = [
    combination
    for combination in itertools.product(WINDOWS, CACHES, STEPS, ("no padding", "left padding"))
    if not meaningless(*combination[:3], 0)
]


@pytest.mark.parametrize(("window", "cache", "steps", "padding"), GRID)
def test_grid(window, cache, steps, padding):
    check(window, cache, steps, padding == "left padding")


@pytest.mark.parametrize("steps", list(STEPS))
@pytest.mark.parametrize("sinks", [1, 4])
@pytest.mark.parametrize("window", [1, 7, LENGTH])
def test_grid_with_sinks(window, sinks, steps):
    for cache, padded in itertools.product(CACHES, (False, True)):
        if not meaningless(window, cache, steps, sinks):
            check(window, cache, steps, padded, sinks=sinks)


@pytest.mark.parametrize("kind", ["upper slide", "alternate"])
@pytest.mark.parametrize("window", [1, 7, 40])
def test_grid_of_mixed_layers(window, kind):
    for cache, padded in itertools.product(CACHES[1:], (False, True)):
        check(window, cache, "mixed", padded, kind)


@pytest.mark.parametrize("steps", ["one pass", "long, then single", "mixed"])
@pytest.mark.parametrize("sinks", [0, 4])
@pytest.mark.parametrize("window", [1, 7, 40, LENGTH - 1, LENGTH])
def test_grid_of_the_optimised_model(window, sinks, steps):
    for cache, padded in itertools.product(CACHES, (False, True)):
        if not meaningless(window, cache, steps, sinks):
            check(window, cache, steps, padded, "alternate", sinks, fast=True)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("window", [1, 100, 256, 300, 599])
@torch.no_grad()
def test_a_long_prompt_of_the_optimised_model_needs_no_mask(window, sinks, cache):
    """Several blocks of `banded_attention`, the last one short; the plain model has the mask."""
    plain = windowed(window, "upper slide", sinks)
    fast = optimize(BASE, "float32").with_window(window, sinks)
    fast.config = plain.config
    ids, kept = random_ids(2, 600, DENSE), None
    if cache != "no cache":
        kept = KVCache(fast.config, 2, 610, ring=cache == "ring cache")
    assert fast.positions_and_masks(ids, None, None)[1] == {None: None, window: Band(window, sinks)}
    exact = plain(torch.cat((ids, ids[:, :9]), 1))
    assert (fast(ids, kept) - exact[:, :600]).abs().max() < 2e-4
    if kept is not None:
        steps = [fast(ids[:, at : at + 1], kept) for at in range(9)]
        assert (torch.cat(steps, 1) - exact[:, 600:]).abs().max() < 2e-4
    seen = [trace(model, ids[0].tolist(), rows=[0, 299, 599]) for model in (plain, fast)]
    for layer in range(4):
        one, other = (found.attention[layer] for found in seen)
        assert (one - other).abs().max() < 1e-4
        assert torch.equal(one > 0, other > 0)


@torch.no_grad()
def test_a_padded_cache_stays_padded_in_the_optimised_model():
    """Emptied by `truncate`, it still knows that its rows may be padded."""
    plain = windowed(7)
    logits = []
    for model in (plain, optimize(plain, "float32")):
        cache = KVCache(model.config, 2, 60)
        model(IDS[:2, :9], cache, torch.tensor([[False] + [True] * 8, [True] * 9]))
        cache.truncate(0)
        logits.append([model(part, cache) for part in IDS[:2, :50].split([40, 1, 9], 1)])
    for one, other in zip(*logits, strict=True):
        assert (one - other).abs().max() < 2e-4


def test_the_meaningless_combinations_are_known():
    listed = [
        combination
        for combination in itertools.product(WINDOWS, CACHES, STEPS, (0, 1))
        if meaningless(*combination)
    ]
    assert len(listed) == 9 * 6 * 2 + 7 * 2 + 8  # of 9 * 3 * 7 * 2


@torch.no_grad()
def test_a_row_that_is_all_padding_gives_no_nan():
    for window in (None, 3):
        model = windowed(window)
        cache = KVCache(model.config, 2, 20)
        first = torch.tensor([[False] * 6, [True] * 6])
        logits = model(IDS[:2, :6], cache, first)
        assert logits.isfinite().all()
        later = torch.tensor([[False] * 2 + [True] * 4, [True] * 6])
        logits = model(IDS[:2, 6:12], cache, later)
        alone = model(IDS[:1, 8:12])
        assert (logits[0, 2:] - alone[0]).abs().max() < 1e-4
        logits = model(IDS[:2, 12:14], cache)  # the cache remembers who is padded
        alone = model(IDS[:1, 8:14])
        assert (logits[0] - alone[0, 4:]).abs().max() < 1e-4


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
@torch.no_grad()
def test_tokens_can_be_taken_back(data):
    """Any order of appending and truncating ends where a fresh run would, or is refused."""
    window = data.draw(st.sampled_from([1, 3, 10]))
    model = windowed(window)
    cache = KVCache(model.config, 1, 400)
    high = 0
    for _ in range(data.draw(st.integers(1, 6))):
        size = data.draw(st.integers(1, 50))
        if cache.length + size > LENGTH:
            break
        logits = model(IDS[:1, cache.length : cache.length + size], cache)
        high = max(high, cache.length)
        wanted = expected(window, "all slide", 0, 0, 0)[cache.length - size : cache.length]
        assert (logits[0] - wanted).abs().max() < 2e-4
        back = data.draw(st.integers(0, ROLLBACK + 5))
        length = max(0, cache.length - back)
        allowed = high <= max(window + ROLLBACK, length + ROLLBACK)
        if allowed:
            cache.truncate(length)
        else:
            with pytest.raises(ValueError, match="tokens back is more than the 32"):
                cache.truncate(length)


def test_truncate_refuses_what_was_never_there():
    cache = KVCache(DENSE, 1, 10)
    with pytest.raises(ValueError, match="expected 0 to 0"):
        cache.truncate(1)


def test_a_reset_cache_is_a_new_one():
    model = windowed(5)
    cache = KVCache(model.config, 1, 100)
    with torch.no_grad():
        first = model(IDS[:1, :60], cache)
        cache.reset()
        assert torch.equal(model(IDS[:1, :60], cache), first)


@pytest.mark.parametrize("n", [1, 5, 30])
@pytest.mark.parametrize("window", [None, 1, 4, 30, 99])
@pytest.mark.parametrize("sinks", [0, 1, 6])
def test_count_pairs_by_counting(n, window, sinks):
    positions = torch.arange(n)[None]
    mask = visible(positions, positions, window, sinks)[0]
    for i, j in itertools.product(range(n), range(n)):
        inside = window is None or i - j < window or j < sinks
        assert bool(mask[i, j]) == (j <= i and inside)
    assert count_pairs(n, window, sinks) == int(mask.sum())


@pytest.mark.parametrize("window", [1, 2, 4, 9])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_receptive_field_by_gradients(window, layers):
    """The last token depends on exactly layers * (window - 1) tokens before it."""
    config = replace(DENSE, num_hidden_layers=layers).with_window(window)
    assert reached(random_model(config), 40) == receptive_field(config.layer_windows, 40)
    assert receptive_field(config.layer_windows, 40) == min(layers * (window - 1), 39)


def test_one_full_layer_reaches_everything():
    for types in itertools.permutations((FULL, SLIDING, SLIDING)):
        config = replace(DENSE, num_hidden_layers=3).with_window(2)
        config = replace(config, layer_types=types)
        assert reached(random_model(config), 40) == 39
        assert receptive_field(config.layer_windows, 40) == 39


def reached(model: Qwen2, n: int) -> int:
    """How far back the gradient of the last logits is not exactly zero."""
    embedded = model.model.embed_tokens(IDS[:1, :n]).detach().requires_grad_()
    hook = model.model.embed_tokens.register_forward_hook(lambda *_: embedded)
    model(IDS[:1, :n])[0, -1].square().sum().backward()
    hook.remove()
    moved = embedded.grad[0].abs().sum(-1).nonzero()
    assert len(moved) == n - int(moved[0])  # no holes
    return n - 1 - int(moved[0])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[True, True, False]], "row 0 has padding after a real token"),
        ([[True, True, True], [False, True, False]], "row 1"),
        ([[True, False, True]], "a hole"),
    ],
)
def test_right_padding_and_holes_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        BASE(IDS[: len(mask), :3], attention_mask=torch.tensor(mask))


def test_padding_after_cached_tokens_is_refused():
    cache = KVCache(DENSE, 1, 10)
    BASE(IDS[:1, :3], cache)
    with pytest.raises(ValueError, match="row 0 has padding"):
        BASE(IDS[:1, :3], cache, torch.tensor([[False, True, True]]))


def by_dense_mask(query, key, value, window, sinks=0):
    """The slow, obvious form: all scores, hidden ones set to minus infinity, softmax."""
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    distance = torch.arange(length)[:, None] - torch.arange(length)
    hidden = (distance < 0) | ((distance >= window) & (torch.arange(length) >= sinks))
    scores = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).masked_fill(hidden, -torch.inf)
    return scores.softmax(-1) @ value


def random_heads(length, heads=4, kv_heads=2, dim=8, seed=0):
    torch.manual_seed(seed)
    return tuple(
        torch.randn(2, h, length, dim, dtype=torch.double) for h in (heads, *[kv_heads] * 2)
    )


@settings(deadline=None, max_examples=120)
@given(
    length=st.integers(1, 70),
    window=st.integers(1, 80),
    sinks=st.integers(0, 9),
    block=st.integers(1, 40),
    kv_heads=st.sampled_from((1, 2, 4)),
)
def test_banded_attention_is_attention_with_the_dense_mask(length, window, sinks, block, kv_heads):
    heads = random_heads(length, kv_heads=kv_heads)
    found = banded_attention(*heads, window, sinks, block)
    torch.testing.assert_close(found, by_dense_mask(*heads, window, sinks), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (5, 0), (40, 2), (200, 0), (500, 4)])
def test_flex_attention_is_attention_with_the_dense_mask(window, sinks):
    heads = [each.float() for each in random_heads(200)]
    found = flex_attention(*heads, window, sinks)
    torch.testing.assert_close(found, by_dense_mask(*heads, window, sinks), rtol=0, atol=2e-6)


def test_banded_gradients_are_those_of_the_dense_mask():
    heads = [each.requires_grad_() for each in random_heads(50)]
    gradients = [
        torch.autograd.grad(form(*heads, 7, 2).sin().sum(), heads)
        for form in (banded_attention, by_dense_mask)
    ]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@given(
    length=st.integers(1, 200),
    window=st.integers(1, 220),
    sinks=st.integers(0, 9),
    block=st.integers(1, 50),
)
def test_the_band_holds_every_visible_key_and_little_more(length, window, sinks, block):
    positions, touched = torch.arange(length)[None], 0
    seen = visible(positions, positions, window, sinks)[0]
    for start in range(0, length, block):
        stop = min(start + block, length)
        ranges = band(start, stop, window, sinks)
        keys = [j for low, high in ranges for j in range(low, high)]
        assert len(keys) == len(set(keys))
        assert set(seen[start:stop].any(0).nonzero().flatten().tolist()) == set(keys)
        touched += (stop - start) * len(keys)
    pairs = count_pairs(length, window, sinks)
    assert pairs <= touched <= pairs + length * (block + min(window, block))


def test_windows_and_blocks_without_meaning_are_refused():
    heads = random_heads(4)
    for wrong in ((0, 0, 4), (4, -1, 4), (4, 0, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            banded_attention(*heads, *wrong)
