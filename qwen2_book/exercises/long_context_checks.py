"""What right answers to the exercises of chapter 13 do: each check raises AssertionError if not."""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book.config import Qwen2Config, RopeScaling
from qwen2_book.dual_chunk import relative_positions
from qwen2_book.rope import inverse_frequencies

SETTINGS: dict[str, float | int] = {"factor": 4.0, "original_max_position_embeddings": 32_768}


def _yarn(name: str, **settings: float | int) -> tuple[Tensor, float]:
    """A released model's frequencies and factor, with YaRN as in the settings."""
    scaling = RopeScaling(**(SETTINGS | settings))  # type: ignore[arg-type]
    return inverse_frequencies(dataclasses.replace(Qwen2Config.named(name), rope_scaling=scaling))


def kept_pairs() -> int:
    """How many pairs of the 7B's head YaRN (factor 4, 32,768 tokens) leaves as they were."""
    plain, _ = inverse_frequencies(Qwen2Config.named("Qwen2-7B"))
    return int((plain == _yarn("Qwen2-7B")[0]).sum())


# 13-2: ntk_base(base, factor, dim)


def slowest_is_slowed(answer: Callable) -> None:
    """The last pair turns as many times slower as the factor says."""
    for base, factor, dim in ((1e4, 4.0, 64), (1e6, 4.0, 128), (1e4, 8.0, 16)):
        power = (dim - 2) / dim
        assert math.isclose(float(answer(base, factor, dim)) ** power, factor * base**power)


def one_changes_nothing(answer: Callable) -> None:
    """A factor of 1 leaves the base."""
    assert math.isclose(float(answer(1e6, 1.0, 64)), 1e6)


# 13-3: distance(i, j, chunk, local)


def distances(kind: int) -> Callable:
    """Distances to keys of the query's own piece (0), of the one before (1), of earlier ones."""

    def holds(answer: Callable) -> None:
        for length, chunk, local in ((40, 14, 4), (30, 8, 0), (24, 6, 3)):
            table, piece = relative_positions(length, chunk, local), chunk - local
            for i in range(length):
                for j in range(i + 1):
                    if min(i // piece - j // piece, 2) == kind:
                        assert int(answer(i, j, chunk, local)) == int(table[i, j])

    return holds


# 13-4: merge(parts, sums)


def _case(shift: float = 0.0, empty: bool = False) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Parts (rows, dim) and log-sums (rows,) of one softmax over 12 keys cut in three."""
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(5, 12, generator=generator).double() * 3 + shift
    values = torch.randn(12, 6, generator=generator).double()
    whole = scores.softmax(-1) @ values
    cuts = [(0, 2), (2, 9), (9, 12)]
    parts = [scores[:, a:b].softmax(-1) @ values[a:b] for a, b in cuts]
    sums = [scores[:, a:b].logsumexp(-1) for a, b in cuts]
    if empty:
        parts.insert(1, torch.zeros(5, 6).double())
        sums.insert(1, torch.full((5,), -torch.inf).double())
    return parts, sums, whole


def _merges(**case: float | bool) -> Callable:
    def holds(answer: Callable) -> None:
        parts, sums, whole = _case(**case)  # type: ignore[arg-type]
        found = answer(parts, sums)
        assert isinstance(found, Tensor) and found.shape == whole.shape
        assert torch.allclose(found.double(), whole, atol=1e-9)

    return holds


merges = _merges()
merges_large = _merges(shift=5000.0)
merges_empty = _merges(empty=True)


def one_part_stays(answer: Callable) -> None:
    """One part alone is the answer, whatever its log-sum."""
    parts, sums, _ = _case()
    assert torch.allclose(answer(parts[:1], sums[:1]), parts[0])


# 13-5: yarn(settings, head_dim, theta), with three planted bugs


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
