"""Exercises of chapter 10: known wrong answers and the planted bugs are refused by name."""

import json
import math

import numpy as np
import pytest
import torch
from planted import failed, printed
from test_exercises import answer_of

from qwen2_book.checkpoint import blocks
from qwen2_book.exercises import check

CHAPTER = "10_loading_checkpoints"


@pytest.mark.parametrize("form", [15_231_233_024, "15,231,233,024 bytes", 15231233024.0])
def test_the_bytes_of_the_7b_in_every_form(form):
    assert check("10-1", form).right


@pytest.mark.parametrize(
    ("exercise", "wrong", "hint"),
    [
        ("10-1", 7_615_616_512, "counts parameters"),
        ("10-1", 14_141_238_272, "not tied"),
        ("10-1", 30_462_466_048, "float32"),
        ("10-1", 988_065_536, "0.5B"),
        ("10-2", 5_771, "stacks the experts"),
        ("10-2", 478, "head of the 57B"),
        ("10-2", 339, "dense 7B"),
        ("10-2", 476, "outside"),
    ],
)
def test_wrong_numbers_are_met_with_their_hint(exercise, wrong, hint):
    verdict = check(exercise, wrong)
    assert not verdict.right
    assert hint in verdict.message


def test_the_hints_are_met_by_the_numbers_they_speak_of():
    from qwen2_book import Qwen2Config
    from qwen2_book.checkpoint import layout

    def numbers(name):
        return [math.prod(s) for s in layout.shapes(Qwen2Config.named(name)).values()]

    assert sum(numbers("Qwen2-7B")) == 7_615_616_512
    assert 2 * sum(numbers("Qwen2-0.5B")) == 988_065_536
    assert 2 * (sum(numbers("Qwen2-7B")) - 152_064 * 3584) == 14_141_238_272
    assert len(numbers("Qwen2-57B-A14B")) == 5_771
    assert len(numbers("Qwen2-7B")) == 339


def believing(data):
    """The header, with all that it says believed."""
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    entries.pop("__metadata__", None)
    found = {}
    for name, entry in entries.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = (entry["dtype"], tuple(entry["shape"]), start, end)
    return found


def test_a_header_that_is_believed_is_refused():
    assert failed("10-3", believing) == [
        "refuses a truncated file",
        "refuses a shape that does not fit its bytes",
        "refuses overlaps",
        "refuses gaps",
    ]
    assert "“refuses a truncated file” fails" in check("10-3", believing).message


def test_a_reader_that_accepts_everything_fails_everywhere():
    assert len(failed("10-3", lambda data: {})) == 6


def test_offsets_from_the_start_of_the_data_are_refused():
    def from_the_data(data):
        first = 8 + int.from_bytes(data[:8], "little")
        return {
            n: (d, s, a - first, b - first) for n, (d, s, a, b) in answer_of("10-3")(data).items()
        }

    assert failed("10-3", from_the_data) == ["reads a good file"]


def q4_0(weights, scale=None, numbers=None, order=None):
    """A right Q4_0 in which a part can be replaced by a wrong one."""
    top = np.take_along_axis(weights, np.abs(weights).argmax(1)[:, None], 1)
    step = (scale or (lambda top: top / -8))(top)
    with np.errstate(all="ignore"):
        ratio = np.nan_to_num(weights / step)
    q = ((numbers or np.rint)(ratio).clip(-8, 7) + 8).astype(np.uint8)
    halves = (order or (lambda q: q[:, :16] | q[:, 16:] << 4))(q)
    return np.concatenate([step.astype(np.float16).view(np.uint8), halves], axis=1)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"scale": lambda top: np.abs(top) / 7}, "the scale"),
        ({"scale": lambda top: np.abs(top) / 8}, "the scale"),
        ({"order": lambda q: q[:, ::2] | q[:, 1::2] << 4}, "the order of the halves"),
        ({"order": lambda q: q[:, 16:] | q[:, :16] << 4}, "the order of the halves"),
        ({"numbers": np.trunc}, "the nearest number"),
    ],
)
def test_wrong_blocks(wrong, named):
    assert check("10-4", q4_0).right
    assert named in failed("10-4", lambda weights: q4_0(weights, **wrong))


def test_blocks_of_another_size_and_of_zeros():
    assert "eighteen bytes a block" in failed("10-4", lambda w: blocks.write(w, "Q8_0"))

    def divides(weights):
        with np.errstate(all="raise"):
            try:
                top = np.take_along_axis(weights, np.abs(weights).argmax(1)[:, None], 1)
                _ = weights / top
            except FloatingPointError:
                return np.full((len(weights), 18), 255, np.uint8)
        return q4_0(weights)

    assert failed("10-4", divides) == ["a block of zeros"]


CONVERSION = ("if tied:", 'if "output.weight" not in found:')
ROWS = ("unflatten(0, (heads, -1, 2))", 'unflatten(0, (heads if "q" in name else kv_heads, -1, 2))')
FAMILY = (
    'for name in ("attn_q.weight", "attn_k.weight"):',
    'for name in ("attn_q.weight", "attn_k.weight") if architecture == "llama" else ():',
)


def test_every_planted_bug_is_named():
    assert set(failed("10-5", printed(CHAPTER, "from_gguf"))) == {
        "the rows of Qwen2",
        "the rows of Llama",
        "a head in the file",
    }
    assert failed("10-5", printed(CHAPTER, "from_gguf", CONVERSION, ROWS)) == ["the rows of Qwen2"]
    assert failed("10-5", printed(CHAPTER, "from_gguf", CONVERSION, FAMILY)) == [
        "the rows of Llama"
    ]
    assert failed("10-5", printed(CHAPTER, "from_gguf", ROWS, FAMILY)) == ["a head in the file"]
    assert check("10-5", printed(CHAPTER, "from_gguf", CONVERSION, ROWS, FAMILY)).right


def test_a_head_that_is_never_made_is_refused():
    def without(tensors, architecture, heads, kv_heads, tied):
        found = answer_of("10-5")(tensors, architecture, heads, kv_heads, tied)
        return {n: t for n, t in found.items() if n != "output.weight" or n in tensors}

    assert "a tied head" in failed(
        "10-5", lambda *a: {"output.weight": torch.zeros(1), **without(*a)}
    )


def test_the_plain_scale_is_not_better_and_a_fixed_factor_is_sometimes_worse():
    assert failed("10-6", lambda w: blocks.write(w, "Q4_0")) == ["three percent better"]

    def shrunk(weights):
        return q4_0(weights, scale=lambda top: top / -8 * 0.9)

    assert "never worse" in failed("10-6", shrunk)
