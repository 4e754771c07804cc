"""What right answers to the exercises of chapter 04 do: each check raises AssertionError if not."""

import cmath
import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.rope import rotate


def _angles(positions: Tensor, dim: int, base: float) -> Tensor:
    powers = base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return positions.double()[..., None] / powers


def slow_pairs() -> int:
    """How many pairs of the 7B's head do not complete a turn inside 32,768 tokens."""
    config = Qwen2Config.named("Qwen2-7B")
    powers = config.rope_theta ** (torch.arange(0, config.head_dim, 2).double() / config.head_dim)
    return int((2 * math.pi * powers > 32_768).sum())


def _close(found: object, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert isinstance(found, Tensor), "not a tensor"
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected.double(), atol=tolerance, rtol=0)


# 04-2: score(query, key, m, n, base), with complex numbers


def _score(query: Tensor, key: Tensor, m: int, n: int, base: float) -> float:
    half, total = len(query) // 2, 0.0
    for i in range(half):
        turn = base ** (-i / half)
        q = complex(query[i], query[i + half]) * cmath.exp(1j * m * turn)
        k = complex(key[i], key[i + half]) * cmath.exp(1j * n * turn)
        total += (q * k.conjugate()).real
    return total


def _vectors(dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dim, generator=generator), torch.randn(dim, generator=generator)


def score_cases(cases: list[tuple[int, int, int, float]], tolerance: float = 1e-3) -> Callable:
    """The reader's score equals the complex-number one for (dim, m, n, base) cases."""

    def holds(score: Callable) -> None:
        for dim, m, n, base in cases:
            query, key = _vectors(dim)
            found = float(score(query, key, m, n, base))
            assert abs(found - _score(query, key, m, n, base)) < tolerance

    return holds


def score_shifts(score: Callable) -> None:
    """Moving both positions changes nothing, moving one does."""
    query, key = _vectors(64)
    near = float(score(query, key, 9, 2, 1e4))
    assert abs(near - float(score(query, key, 1009, 1002, 1e4))) < 1e-2
    assert abs(near - float(score(query, key, 19, 2, 1e4))) > 1e-2


# 04-3: a table of cosines and sines that grows


def table(positions: list[list[int]], tolerance: float = 2e-3) -> Callable:
    """The reader's table gives the right cosines and sines for groups of positions, one by one."""

    def holds(kind: Callable) -> None:
        table = kind(64, 1e6)
        for group in positions:
            where = torch.tensor(group)
            cos, sin = table(where)
            angles = _angles(where, 64, 1e6)
            _close(cos, angles.cos(), tolerance)
            _close(sin, angles.sin(), tolerance)

    return holds


def table_is_kept(kind: Callable) -> None:
    """A second look-up must compute no cosine."""
    table, calls, true_cos = kind(64, 1e6), [], torch.Tensor.cos
    table(torch.arange(300))

    def counted(*args, **options):
        calls.append(1)
        return true_cos(args[0])

    methods, functions = torch.Tensor.cos, torch.cos
    torch.Tensor.cos, torch.cos = counted, counted  # type: ignore[method-assign]
    try:
        table(torch.arange(100, 300))
    finally:
        torch.Tensor.cos, torch.cos = methods, functions  # type: ignore[method-assign]
    assert not calls


def table_is_float32(kind: Callable) -> None:
    """Cosines and sines are float32."""
    cos, sin = kind(64, 1e6)(torch.arange(4))
    assert cos.dtype == sin.dtype == torch.float32


# 04-4: partial rotary


def _heads(dim: int) -> Tensor:
    return torch.randn(2, 3, 5, dim, generator=torch.Generator().manual_seed(1))


def _tables(dim: int, start: int = 0) -> tuple[Tensor, Tensor]:
    angles = _angles(torch.arange(start, start + 5)[None], dim, 1e4).float()
    return angles.cos(), angles.sin()


def part_keeps_input(rotate_part: Callable) -> None:
    """The tensor that goes in is not written to."""
    x = _heads(32)
    before = x.clone()
    rotate_part(x, *_tables(8, start=3))
    assert torch.equal(x, before)


def part_rest(rotate_part: Callable) -> None:
    """Dimensions beyond the part come back as they were."""
    x = _heads(32)
    out = rotate_part(x, *_tables(8, start=3))
    assert isinstance(out, Tensor)
    assert out.shape == x.shape
    assert torch.equal(out[..., 8:], x[..., 8:])


def part_turns(rotate_part: Callable) -> None:
    """The part turns like a small head of its own."""
    x = _heads(32)
    cos, sin = _tables(8, start=3)
    _close(rotate_part(x, cos, sin)[..., :8], rotate(x[..., :8].contiguous(), cos, sin))


def part_whole(rotate_part: Callable) -> None:
    """Turning all dimensions equals `rotate`."""
    x = _heads(8)
    cos, sin = _tables(8)
    _close(rotate_part(x, cos, sin), rotate(x, cos, sin))


# 04-5: weights from the interleaved to the half-split layout


def _interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (0, 1), (2, 3), … as the paper writes them."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def same_scores(to_half_split: Callable) -> None:
    """Scores of moved weights, turned half-split, equal the interleaved model's."""
    generator = torch.Generator().manual_seed(2)
    heads, dim, hidden = 3, 8, 12
    q, k = (torch.randn(heads * dim, hidden, generator=generator) for _ in range(2))
    x = torch.randn(5, hidden, generator=generator)
    cos, sin = (table[0] for table in _tables(dim))

    def scores(q: Tensor, k: Tensor, turn: Callable) -> Tensor:
        query, key = ((x @ w.T).view(5, heads, dim).transpose(0, 1) for w in (q, k))
        return turn(query, cos, sin) @ turn(key, cos, sin).transpose(1, 2)

    def half(y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(y[None], cos[None], sin[None])[0]

    moved = scores(to_half_split(q, heads), to_half_split(k, heads), half)
    _close(moved, scores(q, k, _interleaved))


def rows_are_kept(to_half_split: Callable) -> None:
    """Rows are reordered, none is lost."""
    weight = torch.arange(48.0).view(24, 2)
    moved = to_half_split(weight, 3)
    assert isinstance(moved, Tensor)
    assert moved.shape == weight.shape
    assert torch.equal(moved.sort(0).values, weight)


def heads_stay(to_half_split: Callable) -> None:
    """No row leaves its head."""
    moved = to_half_split(torch.arange(24.0)[:, None], 3)
    assert torch.equal(moved.view(3, 8).sort(-1).values, torch.arange(24.0).view(3, 8))


# 04-6: three planted bugs in one function, turn(x, start, base, dtype)


def turn(x: Tensor, start: int, base: float = 1e6) -> Tensor:
    """x (batch, heads, seq, head_dim) turned; its first token stands at position `start`."""
    seq, dim = x.shape[-2:]
    positions = torch.arange(start, start + seq, dtype=torch.float32)
    angles = positions[:, None] / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return rotate(x, angles.cos()[None], angles.sin()[None])


def bug_start(found: Callable) -> None:
    """A piece that starts at 3 equals the end of the whole."""
    x = _heads(16)
    whole = found(x, 0, 1e4)
    assert torch.allclose(whole[:, :, 3:], found(x[:, :, 3:], 3, 1e4), atol=1e-5)
    assert not torch.allclose(whole[:, :, 3:], x[:, :, 3:], atol=1e-2)


def bug_layout(found: Callable) -> None:
    """Dimension 3 of 16 mixes with dimension 11 only."""
    x = torch.zeros(1, 1, 1, 16)
    x[..., 3] = 1.0
    out = found(x, 1, 1e4)
    assert isinstance(out, Tensor)
    assert set(out[0, 0, 0].abs().gt(1e-7).nonzero().flatten().tolist()) <= {3, 11}


def keeps_dtype(found: Callable) -> None:
    """bfloat16 in, bfloat16 out."""
    assert found(_heads(16).to(torch.bfloat16), 5, 1e4).dtype == torch.bfloat16


def bug_precision(found: Callable) -> None:
    """A distance of one token scores alike at 30,000 and at 0, though the input is bfloat16."""
    query, key = _heads(64)[:, :, :1].to(torch.bfloat16), _heads(64)[:, :, 1:2].to(torch.bfloat16)
    scores = []
    for start in (0, 30_000):
        turned = found(query, start + 1, 1e6), found(key, start, 1e6)
        scores.append((turned[0].float() * turned[1].float()).sum(-1))
    assert float((scores[0] - scores[1]).abs().max()) < 0.3
