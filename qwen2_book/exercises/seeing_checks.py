"""What right answers to the exercises of chapter 14 do: each check raises AssertionError if not."""

from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.trace import mass_in_window


def all_weights_gigabytes() -> float:
    """Every attention weight of Qwen2-7B over 32,768 tokens, four bytes each, in 10^9 bytes."""
    config = Qwen2Config.named("Qwen2-7B")
    return config.num_hidden_layers * config.num_attention_heads * 32_768**2 * 4 / 1e9


def _attention(*shape: int, seed: int = 0) -> Tensor:
    """Random causal attention (..., seq, seq)."""
    scores = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2
    unseen = torch.ones(shape[-2:]).tril() == 0
    return scores.masked_fill(unseen, -torch.inf).softmax(-1)


def _same(found: object, expected: Tensor) -> None:
    assert isinstance(found, Tensor) and found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


# 14-2: kept(attention, window, first)


def _kept(windows: tuple[int, ...], first: bool) -> Callable:
    def holds(answer: Callable) -> None:
        for length in (5, 9):
            attention = _attention(length, length, seed=length)
            for window in windows:
                expected = mass_in_window(attention, range(length), window, int(first)).mean()
                assert abs(float(answer(attention, window, first)) - float(expected)) < 1e-5

    return holds


window_alone = _kept((1, 2, 4), first=False)
first_once = _kept((1, 2, 4), first=True)


def long_window(answer: Callable) -> None:
    """A window longer than the text keeps everything, once."""
    for first in (False, True):
        _kept((9, 20), first)(answer)


# 14-3: weights(query, key), with three planted bugs


def _heads(heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(heads)
    query = torch.randn(heads, 7, 8, generator=generator) * 2
    key = torch.randn(kv_heads, 7, 8, generator=generator)
    expected = torch.zeros(heads, 7, 7)
    for head in range(heads):
        shared = key[head // (heads // kv_heads)]
        for i in range(7):
            scores = torch.stack([query[head, i] @ shared[j] / 8**0.5 for j in range(i + 1)])
            expected[head, i, : i + 1] = scores.softmax(0)
    return query, key, expected


def not_ahead(answer: Callable) -> None:
    """A query's row does not depend on a later key."""
    query, key, _ = _heads(2, 2)
    other = key.clone()
    other[:, -1] += 1
    _same(answer(query, key)[:, :-1], answer(query, other)[:, :-1])


def hidden_gets_nothing(answer: Callable) -> None:
    """What is hidden gets a share of exactly 0."""
    query, key, _ = _heads(2, 2)
    assert float(answer(query, key).triu(2).abs().max()) == 0


def right_partner(answer: Callable) -> None:
    """Consecutive query heads share a key head."""
    for heads, kv_heads in ((4, 2), (6, 3), (14, 2)):
        query, key, expected = _heads(heads, kv_heads)
        found, rows = answer(query, key)[:, -1], expected[:, -1]  # the last query sees all keys
        _same(found, rows)


# 14-4: mean_head(mixed, head, dim)


def _mixed() -> Tensor:
    return torch.randn(6, 12, generator=torch.Generator().manual_seed(3))


def is_its_mean(answer: Callable) -> None:
    """The head's part is its mean over the positions, at every position."""
    mixed = _mixed()
    for head in range(3):
        part = answer(mixed.clone(), head, 4)[:, 4 * head : 4 * head + 4]
        _same(part, mixed[:, 4 * head : 4 * head + 4].mean(0).expand(6, 4))


def others_stay(answer: Callable) -> None:
    """The other heads' parts are as they were."""
    mixed = _mixed()
    for head in range(3):
        found = answer(mixed.clone(), head, 4)
        others = torch.arange(12) // 4 != head
        assert found.shape == mixed.shape and torch.equal(found[:, others], mixed[:, others])


def input_stays(answer: Callable) -> None:
    """The tensor that was given is not changed."""
    mixed = _mixed()
    before = mixed.clone()
    answer(mixed, 1, 4)
    assert torch.equal(mixed, before)


# 14-5: layer_windows(kept, windows, share)

WINDOWS = [1, 2, 4, 8, 16]


def _curves() -> Tensor:
    """Shares kept (layers, heads, windows), rising to 1."""
    steps = torch.rand(5, 3, len(WINDOWS), generator=torch.Generator().manual_seed(5)) ** 3
    return steps.cumsum(-1) / steps.sum(-1, keepdim=True)


def every_head_is_served(answer: Callable) -> None:
    """In its layer's window every head keeps at least the share."""
    kept = _curves()
    for share in (0.3, 0.6, 0.9):
        found = [int(window) for window in answer(kept, WINDOWS, share)]
        assert len(found) == 5
        places = [WINDOWS.index(window) if window in WINDOWS else 0 for window in found]
        assert all(float(kept[n, :, place].min()) >= share for n, place in enumerate(places))


def none_is_longer(answer: Callable) -> None:
    """The next smaller window would not do."""
    kept = _curves()
    for share in (0.3, 0.6, 0.9):
        for layer, window in enumerate(answer(kept, WINDOWS, share)):
            place = WINDOWS.index(int(window))
            assert place == 0 or float(kept[layer, :, place - 1].min()) < share


def at_least(answer: Callable) -> None:
    """A share that is just reached counts."""
    kept = torch.tensor([[[0.25, 0.5, 1.0], [0.5, 0.75, 1.0]]])
    assert [int(window) for window in answer(kept, [1, 2, 3], 0.5)] == [2]


# 14-6: rollout(attention)


def _rollout(attention: Tensor) -> Tensor:
    """One path after the other: from each layer's output back to the inputs (arXiv:2005.00928)."""
    length = attention.shape[-1]
    shares = torch.eye(length)
    for layer in attention:
        step = torch.zeros(length, length)
        for i in range(length):
            for j in range(length):
                step[i, j] = 0.5 * layer[:, i, j].mean() + 0.5 * (i == j)
        shares = step @ shares
    return shares


def one_layer(answer: Callable) -> None:
    """A single layer: half from the token itself, half by the mean of the heads."""
    attention = _attention(1, 3, 5, 5)
    _same(answer(attention), _rollout(attention))


def sums_to_one(answer: Callable) -> None:
    """Each row stays a share of one."""
    found = answer(_attention(4, 2, 6, 6))
    assert torch.allclose(found.sum(-1), torch.ones(6), atol=1e-5)


def later_layers_first(answer: Callable) -> None:
    """The last layer's row says whose states are read, and those are mixtures already."""
    attention = _attention(3, 2, 6, 6, seed=2)
    _same(answer(attention), _rollout(attention))
