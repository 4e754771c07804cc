"""Exercises: every solution is accepted, every known wrong answer is refused with its hint."""

import math
import re

import numpy as np
import pytest
import regex
import torch
from chapter import NOTEBOOKS
from planted import failed, printed

from qwen2_book.exercises import EXERCISES, check
from qwen2_book.exercises.base import Code, Value
from qwen2_book.exercises.rope_checks import _score, turn
from qwen2_book.exercises.window_checks import _dilated, _seen, _with_globals
from qwen2_book.rope import rotate

SOLUTION = re.compile(
    r"<summary>Solution of (\d\d-\d+)</summary>\n\n```python\n(.*?)```", re.DOTALL
)


def solutions() -> dict[str, str]:
    """The folded solutions as the chapters print them."""
    texts = (file.read_text(encoding="utf-8") for file in (NOTEBOOKS / "text").glob("*.md"))
    return {name: code for text in texts for name, code in SOLUTION.findall(text)}


def answer_of(name: str):
    space = {"torch": torch, "math": math, "regex": regex}
    exec(solutions()[name], space)
    return space["answer"]


def test_every_exercise_has_a_solution_and_a_cell():
    assert set(solutions()) == set(EXERCISES)
    texts = "".join(file.read_text(encoding="utf-8") for file in (NOTEBOOKS / "text").glob("*.md"))
    for name in EXERCISES:
        assert f'check("{name}", ' in texts


@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_the_solution_is_right(name):
    verdict = check(name, answer_of(name))
    assert verdict.right, verdict
    assert repr(verdict).startswith(f"{name}: right.")


@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_dots_and_nonsense_are_no_answer(name):
    assert "not answered yet" in check(name).message
    for nonsense in (None, "the third one", object(), [], True):
        verdict = check(name, nonsense)
        assert not verdict.right
        assert verdict.message.startswith(name)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match=r"'99-9', expected one of: .*04-1"):
        check("99-9", 1)


@pytest.mark.parametrize(
    "form", [24, 24.0, "24", "24 pairs", " 24. ", np.int64(24), torch.tensor(24), [24]]
)
def test_a_right_number_is_right_in_every_form(form):
    assert check("04-1", form).right


@pytest.mark.parametrize("name", [n for n, e in EXERCISES.items() if isinstance(e, Value)])
def test_no_message_holds_the_solution(name):
    exercise = EXERCISES[name]
    solution = f"{exercise.expected():g}"
    for wrong in (*exercise.hints, 10**6 + 3):
        verdict = check(name, wrong)
        assert not verdict.right, wrong
        assert not re.search(rf"\b{solution}\b", verdict.message.removeprefix(name))
    said = {check(name, wrong).message for wrong in exercise.hints}
    assert len(said) == len(exercise.hints)


def test_the_hints_are_for_answers_people_reach():
    """Each hinted number of 04-1 comes from the mistake that its hint names."""

    def pairs(dim, base, length, turn=2 * math.pi):
        waves = turn * base ** (torch.arange(0, dim, 2).double() / dim)
        return int((waves > length).sum())

    reached = {
        64 - pairs(128, 1e6, 32_768),
        pairs(64, 1e6, 32_768),
        pairs(128, 1e4, 32_768),
        pairs(128, 1e6, 32_768, turn=1.0),
        2 * pairs(128, 1e6, 32_768),
        pairs(128, 1e6, 4_096),
    }
    assert reached == set(EXERCISES["04-1"].hints)


# Wrong code, and the property that names its fault.


def no_conjugate(query, key, m, n, base):
    half = len(query) // 2
    angle = base ** (-torch.arange(half).double() / half)
    q = torch.complex(query[:half].double(), query[half:].double()) * torch.exp(1j * m * angle)
    k = torch.complex(key[:half].double(), key[half:].double()) * torch.exp(1j * n * angle)
    return float((q * k).real.sum())


def neighbours(query, key, m, n, base):
    dim = len(query)
    angle = base ** (-torch.arange(0, dim, 2).double() / dim)
    q = torch.view_as_complex(query.double().view(-1, 2)) * torch.exp(1j * m * angle)
    k = torch.view_as_complex(key.double().view(-1, 2)) * torch.exp(1j * n * angle)
    return float((q * k.conj()).real.sum())


def columns_only(length, window, is_global):
    distance = torch.arange(length)[:, None] - torch.arange(length)
    return (distance >= 0) & ((distance < window) | is_global)


class Fixed:
    """A table that can't grow."""

    def __init__(self, head_dim, base, length=256):
        angles = torch.arange(length)[:, None] * base ** (-torch.arange(0, head_dim, 2) / head_dim)
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, positions):
        return self.cos[positions], self.sin[positions]


class FirstRows(Fixed):
    """Takes the first rows, whatever positions are asked."""

    def __call__(self, positions):
        return self.cos[: len(positions)], self.sin[: len(positions)]


class Forgetful:
    """Right, and computed again at every call."""

    def __init__(self, head_dim, base):
        self.powers = base ** (-torch.arange(0, head_dim, 2).float() / head_dim)

    def __call__(self, positions):
        angles = positions.float()[..., None] * self.powers
        return angles.cos(), torch.sin(angles)


class Double(Forgetful):
    """Right, in float64."""

    def __call__(self, positions):
        return tuple(table.double() for table in super().__call__(positions))


def whole_head_pairs(x, cos, sin):
    half, pairs = x.shape[-1] // 2, cos.shape[-1]
    out, c, s = x.clone(), cos[:, None], sin[:, None]
    first, second = x[..., :pairs], x[..., half : half + pairs]
    out[..., :pairs], out[..., half : half + pairs] = first * c - second * s, second * c + first * s
    return out


def rest_first(x, cos, sin):
    part = 2 * cos.shape[-1]
    return torch.cat((x[..., part:], rotate(x[..., :part], cos, sin)), dim=-1)


def across_heads(weight, heads):
    return torch.cat((weight[0::2], weight[1::2]))


def other_way(weight, heads):
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def decode_forgets(queries, keys, window):
    if len(queries) == 1:
        return (keys >= 0)[None]
    return _seen(queries.tolist(), keys.tolist(), window)


def looks_ahead(queries, keys, window):
    if len(queries) > window:
        return ((queries[:, None] - keys).abs() < window) & (keys >= 0)
    return _seen(queries.tolist(), keys.tolist(), window)


WRONG = [
    ("04-2", no_conjugate, "position 0 turns nothing"),
    ("04-2", lambda q, k, m, n, b: _score(q, k, m, -n, b), "one pair by hand"),
    ("04-2", lambda q, k, m, n, b: float(q @ k), "one pair by hand"),
    ("04-2", neighbours, "many pairs"),
    ("04-2", lambda q, k, m, n, b: 0.0, "position 0 turns nothing"),
    ("04-3", Fixed, "beyond what it has"),
    ("04-3", FirstRows, "any order, any shape"),
    ("04-3", Forgetful, "computed once"),
    ("04-3", Double, "float32"),
    ("04-4", whole_head_pairs, "the rest is untouched"),
    ("04-4", rest_first, "the rest is untouched"),
    ("04-4", lambda x, cos, sin: x, "the first part turns"),
    ("04-5", across_heads, "heads stay apart"),
    ("04-5", other_way, "the same scores"),
    ("04-5", lambda weight, heads: weight, "the same scores"),
    ("04-5", lambda weight, heads: weight[: len(weight) // 2], "a permutation of rows"),
    ("07-2", lambda n, w, d: _dilated(n, w, d) | _dilated(n, w, d).T, "nobody looks ahead"),
    ("07-2", lambda n, w, d: _dilated(n, -(-w // d), d), "W keys in all"),
    ("07-2", lambda n, w, d: _dilated(n, w + 1, d), "dilation 1 is the window"),
    ("07-2", lambda n, w, d: _dilated(n, w, 1), "W keys in all"),
    ("07-2", lambda n, w, d: _dilated(n, w, min(d, 2)), "W keys in all"),
    ("07-3", lambda q, k, w: _seen(q, k, w + 1), "W keys, not one more"),
    ("07-6", lambda n, w, g: _with_globals(n, w + 1, []), "no global token: the window"),
    ("07-6", lambda n, w, g: _with_globals(n, w, []), "seen by all later queries"),
    ("07-6", columns_only, "sees all earlier keys"),
    ("07-3", decode_forgets, "one query has a window too"),
    ("07-3", looks_ahead, "nobody looks ahead"),
    (
        "07-3",
        lambda q, k, w: (q[:, None] - k >= 0) & (q[:, None] - k < w),
        "a ring, and its empty slots",
    ),
]


@pytest.mark.parametrize(("name", "wrong", "fault"), WRONG)
def test_wrong_code_is_refused_by_name(name, wrong, fault):
    verdict = check(name, wrong)
    assert not verdict.right
    assert f"“{fault}”" in verdict.message, verdict


def test_code_that_stops_is_reported_not_raised():
    verdict = check("04-2", lambda query: query)
    assert not verdict.right
    assert "TypeError" in verdict.message


# The planted bugs of 04-6: each alone fails its own property; the cell's function has all three.


def bug_start(x, start, base=1e6):
    return turn(x, 0, base)


def bug_layout(x, start, base=1e6):
    seq, dim = x.shape[-2:]
    positions = torch.arange(start, start + seq).float()
    angles = positions[:, None] / base ** (torch.arange(0, dim, 2) / dim)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def bug_precision(x, start, base=1e6):
    seq, dim = x.shape[-2:]
    positions = torch.arange(start, start + seq, dtype=x.dtype)
    angles = positions[:, None] / base ** (torch.arange(0, dim, 2, dtype=x.dtype) / dim)
    return rotate(x, angles.cos()[None], angles.sin()[None])


def bug_dtype(x, start, base=1e6):
    return turn(x.float(), start, base)


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (bug_start, "a later piece stands later"),
        (bug_layout, "half-split pairs"),
        (bug_precision, "angles in float32"),
        (bug_dtype, "the output keeps the dtype"),
    ],
)
def test_each_planted_bug_fails_its_own_property_and_no_other(planted, fault):
    assert failed("04-6", planted) == [fault]


def test_the_printed_function_has_all_three_bugs():
    """The first is met first; with it repaired, both others are seen."""
    start, layout, precision, _ = (each.name for each in EXERCISES["04-6"].properties)
    repair = ("arange(seq,", "arange(start, start + seq,")
    assert failed("04-6", printed("04_rope", "turn"))[0] == start
    assert {layout, precision} <= set(failed("04-6", printed("04_rope", "turn", repair)))


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (decode_forgets, "one query has a window too"),
        (looks_ahead, "nobody looks ahead"),
    ],
)
def test_each_planted_bug_of_the_mask_fails_its_own_property_and_no_other(planted, fault):
    assert failed("07-3", planted) == [fault]


def test_the_printed_mask_has_all_three_bugs():
    three = {each.name for each in EXERCISES["07-3"].properties[:3]}
    assert three <= set(failed("07-3", printed("07_sliding_window_attention", "mask")))


def test_the_hints_of_chapter_07_are_for_answers_people_reach():
    layers, window, length = 24, 4096, 131_072
    reached = {layers * window, layers * (window - 1), window, layers * window + 1}
    assert reached == set(EXERCISES["07-1"].hints)
    all_slide = 100 * window / length
    left = EXERCISES["07-4"].expected()
    shares = {round(all_slide), 50, round(100 - left), round(left / 100, 4)}
    assert shares == set(EXERCISES["07-4"].hints)
    piece = 512
    assert {window, window + piece, piece, 2 * window} == set(EXERCISES["07-5"].hints)


def test_every_kind_of_exercise_is_known():
    assert all(isinstance(exercise, Value | Code) for exercise in EXERCISES.values())
