"""What right answers to the exercises of chapter 13 do: each check raises AssertionError if not."""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book import costs
from qwen2_book.config import Qwen2Config, RopeScaling
from qwen2_book.rope import inverse_frequencies

SETTINGS: dict[str, float | int] = {"factor": 4.0, "original_max_position_embeddings": 32_768}


def _yarn(name: str, **settings: float | int) -> tuple[Tensor, float]:
    """A released model's frequencies and factor, with YaRN as in the settings."""
    scaling = RopeScaling(**(SETTINGS | settings))  # type: ignore[arg-type]
    return inverse_frequencies(dataclasses.replace(Qwen2Config.named(name), rope_scaling=scaling))


def kept_pairs() -> int:
    """How many pairs of a 7B's head of base 10,000 YaRN (8 times 4,096 tokens) leaves alone."""
    early = dataclasses.replace(Qwen2Config.named("Qwen2-7B"), rope_theta=1e4)
    plain, _ = inverse_frequencies(early)
    yarn = dataclasses.replace(early, rope_scaling=RopeScaling(8.0, 4_096))
    return int((plain == inverse_frequencies(yarn)[0]).sum())


# 13-2: ntk_base(base, factor, dim, pair)


def _slowed(answer: Callable, base: float, factor: float, dim: int, pair: int) -> None:
    power = 2 * pair / dim
    assert math.isclose(float(answer(base, factor, dim, pair)) ** power, factor * base**power)


def slowest_is_slowed(answer: Callable) -> None:
    """The last pair turns as many times slower as the factor says."""
    for base, factor, dim in ((1e4, 4.0, 64), (1e6, 4.0, 128), (1e4, 8.0, 16)):
        _slowed(answer, base, factor, dim, dim // 2 - 1)


def chosen_is_slowed(answer: Callable) -> None:
    """So does any other pair that is asked for."""
    for base, factor, dim, pair in ((1e4, 4.0, 64, 1), (1e6, 4.0, 128, 40), (1e4, 8.0, 16, 3)):
        _slowed(answer, base, factor, dim, pair)


def one_changes_nothing(answer: Callable) -> None:
    """A factor of 1 leaves the base."""
    assert math.isclose(float(answer(1e6, 1.0, 64, 20)), 1e6)


# 13-3: lookalikes(i, j, chunk, local)


def seems(i: int, j: int, chunk: int, local: int) -> int:
    """How far key j seems to query i, by the three cases of the paper (arXiv:2402.17463)."""
    piece = chunk - local
    if i // piece == j // piece:
        return i - j
    if i // piece == j // piece + 1 and i % piece <= local:
        return i - j
    return chunk - j % piece


def lookalikes(kind: int) -> Callable:
    """Keys that look like one of the query's own piece (0), of the one before (1), of others."""

    def holds(answer: Callable) -> None:
        for length, chunk, local in ((40, 14, 4), (30, 8, 0), (24, 6, 3)):
            piece = chunk - local
            for i in range(length):
                row = [seems(i, key, chunk, local) for key in range(i + 1)]
                for j in range(i + 1):
                    if min(i // piece - j // piece, 2) == kind:
                        like = [key for key, far in enumerate(row) if far == row[j]]
                        assert list(map(int, answer(i, j, chunk, local))) == like

    return holds


# 13-4: merge(first, second)


def _case(shift: float = 0.0, empty: bool = False) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Pairs (output, log-sum) of the parts of one softmax over 12 keys, and the whole output."""
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(5, 12, generator=generator).double() * 3 + shift
    values = torch.randn(12, 6, generator=generator).double()
    cuts = [(0, 2), (2, 9), (9, 12)] if empty is False else [(0, 0), (0, 7), (7, 12)]
    parts = [
        (scores[:, a:b].softmax(-1) @ values[a:b], scores[:, a:b].logsumexp(-1))
        if b > a
        else (torch.zeros(5, 6).double(), torch.full((5,), -torch.inf).double())
        for a, b in cuts
    ]
    return parts, scores.softmax(-1) @ values


def _same(found: object, whole: Tensor) -> None:
    assert isinstance(found, Tensor) and found.shape == whole.shape
    assert torch.allclose(found.double(), whole, atol=1e-9)


def _merges(**case: float | bool) -> Callable:
    def holds(answer: Callable) -> None:
        (one, two, three), whole = _case(**case)  # type: ignore[arg-type]
        _same(answer(answer(one, two), three)[0], whole)
        _same(answer(three, answer(two, one))[0], whole)

    return holds


def merges(answer: Callable) -> None:
    """Two parts: the output over the keys of both."""
    (one, two, _), _ = _case()
    shares = torch.stack((one[1], two[1])).softmax(0)[:, :, None]
    found = answer(one, two)
    both = (shares * torch.stack((one[0], two[0]))).sum(0)
    _same(found[0] if isinstance(found, tuple | list) else found, both)


is_ready_for_more = _merges()
merges_large = _merges(shift=5000.0)
merges_empty = _merges(empty=True)


# 13-5: longest_text(config, memory)


def _room(name: str, memory: int) -> int:
    config = Qwen2Config.named(name)
    return max(0, (memory - costs.weight_bytes(config)) // costs.cache_bytes(config, 1))


def room_for_tokens(answer: Callable) -> None:
    """A difference of memory buys as many tokens as its bytes hold."""
    for name in ("Qwen2-0.5B", "Qwen2-7B", "Qwen2-72B"):
        config = Qwen2Config.named(name)
        less, more = (int(answer(config, gib * 2**30)) for gib in (200, 300))
        assert abs(more - less - 100 * 2**30 // costs.cache_bytes(config, 1)) <= 1


def weights_stay(answer: Callable) -> None:
    """The weights' bytes are not for the cache."""
    for name, gib in (("Qwen2-0.5B", 4), ("Qwen2-7B", 24), ("Qwen2-72B", 160)):
        assert int(answer(Qwen2Config.named(name), gib * 2**30)) == _room(name, gib * 2**30)


def never_negative(answer: Callable) -> None:
    """No room for the weights: no token."""
    assert int(answer(Qwen2Config.named("Qwen2-72B"), 80 * 2**30)) == 0


# 13-6: yarn_of(settings, head_dim, theta), with three planted bugs


def _given(**more: float) -> dict[str, float | int]:
    return SETTINGS | {"max_position_embeddings": 131_072} | more


def original_length(answer: Callable) -> None:
    """YaRN's bounds come from the length trained on, not from the model's new limit."""
    frequencies, _ = answer(_given(), 64, 1e6)
    assert torch.allclose(frequencies.float(), _yarn("Qwen2-0.5B")[0], rtol=1e-4)


def factor_once(answer: Callable) -> None:
    """The scores' factor is the paper's, not its square."""
    assert math.isclose(float(answer(_given(), 64, 1e6)[1]), _yarn("Qwen2-0.5B")[1], rel_tol=1e-5)


def own_factor(answer: Callable) -> None:
    """A factor that the settings name is taken."""
    assert math.isclose(float(answer(_given(attention_factor=1.0), 64, 1e6)[1]), 1.0)
    assert math.isclose(float(answer(_given(attention_factor=1.3), 64, 1e6)[1]), 1.3)
