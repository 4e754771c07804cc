"""What right answers to the exercises of chapter 07 do: each check raises AssertionError if not."""

from collections.abc import Callable

import torch
from torch import Tensor


def reached() -> int:
    """Positions that can reach the last one through 24 layers with a window of 4,096."""
    return 24 * (4096 - 1) + 1


def cache_share() -> float:
    """Percent of a full cache at 131,072 tokens, if half of the layers keep 4,096."""
    return 100 * (131_072 + 4096) / (2 * 131_072)


# 07-2: dilated(length, window, dilation)


def _dilated(length: int, window: int, dilation: int) -> Tensor:
    def sees(i: int, j: int) -> bool:
        return j <= i and (i - j) % dilation == 0 and i - j < window * dilation

    rows = [[sees(i, j) for j in range(length)] for i in range(length)]
    return torch.tensor(rows)


def dilated_cases(cases: list[tuple[int, int, int]]) -> Callable:
    """The reader's mask equals the definition for (length, window, dilation) cases."""

    def holds(dilated: Callable) -> None:
        for length, window, dilation in cases:
            found = torch.as_tensor(dilated(length, window, dilation))
            assert found.shape == (length, length)
            assert torch.equal(found.bool(), _dilated(length, window, dilation))

    return holds


def dilated_future(dilated: Callable) -> None:
    """The reader's mask has nothing above the diagonal."""
    for length, window, dilation in ((7, 3, 1), (9, 3, 2)):
        found = torch.as_tensor(dilated(length, window, dilation))
        assert found.shape == (length, length)
        assert not found.bool().triu(1).any()


# 07-3: mask(queries, keys, window), positions of any order, -1 for empty


def _seen(queries: list[int], keys: list[int], window: int) -> Tensor:
    return torch.tensor([[j >= 0 and 0 <= i - j < window for j in keys] for i in queries])


def mask_cases(cases: list[tuple[list[int], list[int], int]]) -> Callable:
    """The reader's mask equals the definition for (queries, keys, window) cases."""

    def holds(mask: Callable) -> None:
        for queries, keys, window in cases:
            found = torch.as_tensor(mask(torch.tensor(queries), torch.tensor(keys), window))
            assert torch.equal(found.bool(), _seen(queries, keys, window))

    return holds


def ring_slots() -> int:
    """Slots for pieces of 512 tokens and a window of 4,096, each piece written before it looks."""
    return 4096 + 512 - 1


# 07-6: with_globals(length, window, is_global)


def _with_globals(length: int, window: int, chosen: list[int]) -> Tensor:
    def sees(i: int, j: int) -> bool:
        return j <= i and (i - j < window or j in chosen or i in chosen)

    return torch.tensor([[sees(i, j) for j in range(length)] for i in range(length)])


def global_cases(cases: list[tuple[int, int, list[int]]]) -> Callable:
    """The reader's mask equals the definition for (length, window, global tokens) cases."""

    def holds(with_globals: Callable) -> None:
        for length, window, chosen in cases:
            is_global = torch.zeros(length, dtype=torch.bool)
            is_global[chosen] = True
            found = torch.as_tensor(with_globals(length, window, is_global))
            assert found.shape == (length, length)
            assert torch.equal(found.bool(), _with_globals(length, window, chosen))

    return holds
