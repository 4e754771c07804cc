"""The exercises of chapter 04, rotary positions."""

import cmath
import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.rope import rotate


def _angles(positions: Tensor, dim: int, base: float) -> Tensor:
    powers = base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return positions.double()[..., None] / powers


def _slow_pairs() -> int:
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


def _score_cases(cases: list[tuple[int, int, int, float]], tolerance: float = 1e-3) -> Callable:
    def holds(score: Callable) -> None:
        for dim, m, n, base in cases:
            query, key = _vectors(dim)
            found = float(score(query, key, m, n, base))
            assert abs(found - _score(query, key, m, n, base)) < tolerance

    return holds


def _score_shifts(score: Callable) -> None:
    query, key = _vectors(64)
    near = float(score(query, key, 9, 2, 1e4))
    assert abs(near - float(score(query, key, 1009, 1002, 1e4))) < 1e-2
    assert abs(near - float(score(query, key, 19, 2, 1e4))) > 1e-2


# 04-3: a table of cosines and sines that grows


def _table(positions: list[list[int]], tolerance: float = 2e-3) -> Callable:
    def holds(kind: Callable) -> None:
        table = kind(64, 1e6)
        for group in positions:
            where = torch.tensor(group)
            cos, sin = table(where)
            angles = _angles(where, 64, 1e6)
            _close(cos, angles.cos(), tolerance)
            _close(sin, angles.sin(), tolerance)

    return holds


def _table_is_kept(kind: Callable) -> None:
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


def _table_is_float32(kind: Callable) -> None:
    cos, sin = kind(64, 1e6)(torch.arange(4))
    assert cos.dtype == sin.dtype == torch.float32


# 04-4: partial rotary


def _heads(dim: int) -> Tensor:
    return torch.randn(2, 3, 5, dim, generator=torch.Generator().manual_seed(1))


def _tables(dim: int, start: int = 0) -> tuple[Tensor, Tensor]:
    angles = _angles(torch.arange(start, start + 5)[None], dim, 1e4).float()
    return angles.cos(), angles.sin()


def _part_rest(rotate_part: Callable) -> None:
    x = _heads(32)
    out = rotate_part(x, *_tables(8, start=3))
    assert isinstance(out, Tensor)
    assert out.shape == x.shape
    assert torch.equal(out[..., 8:], x[..., 8:])


def _part_turns(rotate_part: Callable) -> None:
    x = _heads(32)
    cos, sin = _tables(8, start=3)
    _close(rotate_part(x, cos, sin)[..., :8], rotate(x[..., :8].contiguous(), cos, sin))


def _part_whole(rotate_part: Callable) -> None:
    x = _heads(8)
    cos, sin = _tables(8)
    _close(rotate_part(x, cos, sin), rotate(x, cos, sin))


# 04-5: weights from the interleaved to the half-split layout


def _interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (0, 1), (2, 3), … as the paper writes them."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def _same_scores(to_half_split: Callable) -> None:
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


def _rows_are_kept(to_half_split: Callable) -> None:
    weight = torch.arange(48.0).view(24, 2)
    moved = to_half_split(weight, 3)
    assert isinstance(moved, Tensor)
    assert moved.shape == weight.shape
    assert torch.equal(moved.sort(0).values, weight)


def _heads_stay(to_half_split: Callable) -> None:
    moved = to_half_split(torch.arange(24.0)[:, None], 3)
    assert torch.equal(moved.view(3, 8).sort(-1).values, torch.arange(24.0).view(3, 8))


# 04-6: three planted bugs in one function, turn(x, start, base, dtype)


def turn(x: Tensor, start: int, base: float = 1e6) -> Tensor:
    """x (batch, heads, seq, head_dim) turned; its first token stands at position `start`."""
    seq, dim = x.shape[-2:]
    positions = torch.arange(start, start + seq, dtype=torch.float32)
    angles = positions[:, None] / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return rotate(x, angles.cos()[None], angles.sin()[None])


def _bug_start(found: Callable) -> None:
    x = _heads(16)
    whole = found(x, 0, 1e4)
    assert torch.allclose(whole[:, :, 3:], found(x[:, :, 3:], 3, 1e4), atol=1e-5)
    assert not torch.allclose(whole[:, :, 3:], x[:, :, 3:], atol=1e-2)


def _bug_layout(found: Callable) -> None:
    x = torch.zeros(1, 1, 1, 16)
    x[..., 3] = 1.0
    out = found(x, 1, 1e4)
    assert isinstance(out, Tensor)
    assert set(out[0, 0, 0].abs().gt(1e-7).nonzero().flatten().tolist()) <= {3, 11}


def _bug_precision(found: Callable) -> None:
    x = _heads(64).to(torch.bfloat16)
    out, exact = found(x, 30_000, 1e6), turn(x.float(), 30_000, 1e6)
    assert out.dtype == torch.bfloat16
    assert float((out.float() - exact).abs().max()) < 0.1


EXERCISES: dict[str, Exercise] = {
    "04-1": Value(
        expected=_slow_pairs,
        praise="These pairs never come round inside the window that Qwen2 was trained on, so each "
        "of their angles means one distance only.",
        hints={
            40: "That is how many DO complete a turn. The question asks for the others.",
            12: "That is the 0.5B, whose heads have 64 dimensions. The 7B's have 128.",
            4: "That is the answer for base 10,000. Qwen2's released base is larger.",
            15: "Did you leave out 2π? After 1/frequency tokens a pair has turned by one radian "
            "only.",
            48: "Dimensions or pairs? A pair is counted once.",
            33: "Count those that do NOT come round inside 32,768 tokens, not inside 4,096.",
        },
        otherwise="Not yet. Compute the 64 wavelengths of the 7B and count those above 32,768.",
    ),
    "04-2": Code(
        (
            Property(
                "position 0 turns nothing",
                _score_cases([(8, 0, 0, 1e4), (64, 0, 0, 1e6)]),
                "At m = n = 0 the score is the plain dot product of query and key.",
            ),
            Property(
                "one pair by hand",
                _score_cases([(2, 3, 1, 1e4), (2, 1, 3, 1e4)]),
                "With two dimensions there is one pair and its frequency is 1. Is it the conjugate "
                "of the turned key that you multiply with?",
            ),
            Property(
                "many pairs",
                _score_cases([(8, 5, 2, 1e4), (64, 40, 7, 1e6)]),
                "Pair i joins dimensions i and i + d/2, and turns by θ^(−2i/d) a token.",
            ),
            Property(
                "only the distance counts",
                _score_shifts,
                "Moving both positions by 1,000 changed the score: do both use their own position?",
            ),
        ),
        praise="Four lines of complex numbers, and they equal the package's score.",
    ),
    "04-3": Code(
        (
            Property(
                "first positions",
                _table([[0, 1, 2, 3]]),
                "The angle of position p and pair i is p · θ^(−2i/d); the table has d/2 columns.",
            ),
            Property("float32", _table_is_float32, "The table must be float32, on every path."),
            Property(
                "any order, any shape",
                _table([[5, 3, 3, 0]]),
                "Look rows up by position, `table[positions]`; do not cut the first rows off.",
            ),
            Property(
                "beyond what it has",
                _table([[0, 1], [70_000], [2, 3]]),
                "A position beyond the table must make it grow, and the old rows must stay right. "
                "(Angles multiplied in float32 are near enough.)",
            ),
            Property(
                "computed once",
                _table_is_kept,
                "The second look-up computed cosines again: keep the table in `self`.",
            ),
        ),
        praise="Rows are computed once and looked up afterwards, whatever the order of positions.",
    ),
    "04-4": Code(
        (
            Property(
                "the rest is untouched",
                _part_rest,
                "cos has one column a pair, so 2 · cos.shape[-1] dimensions turn; all others must "
                "come back bit by bit as they were, in their places.",
            ),
            Property(
                "the first part turns",
                _part_turns,
                "Pairs are halves of the PART that turns: with 8 of 32 dimensions, pair 0 is "
                "(0, 4), not (0, 16).",
            ),
            Property(
                "all of it is a part too",
                _part_whole,
                "With cos for all dimensions it must equal `rotate`.",
            ),
        ),
        praise="The dimensions that do not turn compare content with no regard to distance.",
    ),
    "04-5": Code(
        (
            Property(
                "a permutation of rows",
                _rows_are_kept,
                "Only the order of the rows may change: same shape, no row lost or doubled.",
            ),
            Property(
                "heads stay apart",
                _heads_stay,
                "The rows were moved across heads. Reshape to (heads, …) first.",
            ),
            Property(
                "the same scores",
                _same_scores,
                "The scores differ from those of the interleaved model. Which two rows of a head "
                "were a pair before, and which two will `rotate` take for a pair?",
            ),
        ),
        praise="That is what converters do to checkpoints that were trained with the other layout.",
    ),
    "04-6": Code(
        (
            Property(
                "a later piece stands later",
                _bug_start,
                "Turning tokens 3, 4 alone with start=3 differs from turning all five from 0: what "
                "a model does at every step after the first, with a cache.",
            ),
            Property(
                "half-split pairs",
                _bug_layout,
                "Dimension 3 of 16 must mix with dimension 11 only: these weights are half-split.",
            ),
            Property(
                "angles in float32",
                _bug_precision,
                "At position 30,000 a bfloat16 input comes out far from the exact turn. In which "
                "dtype are the angles computed?",
            ),
        ),
        praise="All three are gone. Each of them has been in a released library.",
    ),
}
