"""Chapter 13's exercises: planted bugs and usual wrong answers, each named by what fails."""

import pytest
import torch
from planted import failed, printed

from qwen2_book.exercises import check

LENGTH = ('settings["max_position_embeddings"]', 'settings["original_max_position_embeddings"]')
ONCE = ("scale * scale", "scale")
OWN = ("scale = 0.1 *", 'scale = settings.get("attention_factor") or 0.1 *')
NAMES = {LENGTH: "the trained length", ONCE: "the factor once", OWN: "the checkpoint's own factor"}


@pytest.mark.parametrize("left", NAMES, ids=NAMES.values())
def test_each_planted_bug_fails_its_property(left):
    repairs = [repair for repair in NAMES if repair != left]
    assert NAMES[left] in failed("13-5", printed("13_long_context", "yarn", *repairs))
    if left != ONCE:
        assert "the factor once" not in failed("13-5", printed("13_long_context", "yarn", *repairs))


def test_all_repairs_together_are_right():
    assert failed("13-5", printed("13_long_context", "yarn", *NAMES)) == []
    assert check("13-5", printed("13_long_context", "yarn", *NAMES)).right


@pytest.mark.parametrize(("wrong", "hint"), [(12, "0.5B"), (23, "counted from 0"), (40, "whole")])
def test_wrong_counts_meet_a_hint(wrong, hint):
    assert hint in check("13-1", wrong).message
    assert not check("13-1", wrong).right
    assert check("13-1", "24 pairs").right


def test_the_usual_wrong_functions():
    assert failed("13-2", lambda base, factor, dim: base * factor) == [
        "the slowest pair is slowed by the factor"
    ]
    assert failed("13-3", lambda i, j, chunk, local: i - j) == [
        "the piece before",
        "earlier pieces",
    ]
    assert "large scores" in failed(
        "13-4",
        lambda parts, sums: (
            sum(s.exp()[:, None] * p for p, s in zip(parts, sums, strict=True))
            / sum(s.exp()[:, None] for s in sums)
        ),
    )
    assert "equal to one softmax" in failed("13-4", lambda parts, sums: torch.stack(parts).mean(0))


def test_a_distance_that_forgets_the_clamp_fails_where_it_shows():
    def unclamped(i, j, chunk, local):
        piece = chunk - local
        back = min(i // piece - j // piece, 2)
        return (
            i % piece + (piece if back == 1 else 0) - j % piece if back < 2 else chunk - j % piece
        )

    assert failed("13-3", unclamped) == ["the piece before"]
