"""Chapter 11's exercises: planted bugs and usual wrong answers, each named by what fails."""

import pytest
import torch
from planted import failed, printed
from test_exercises import answer_of

from qwen2_book.exercises import check
from qwen2_book.sampling import Sampler

CHAPTER = "11_generation"


def test_the_printed_functions_have_their_bugs():
    found = failed("11-3", printed(CHAPTER, "penalised"))
    assert found == [
        "a negative logit falls",
        "a token that stands there twice",
        "padding",
        "the logits that came in",
    ]
    found = failed("11-5", printed(CHAPTER, "send"))
    assert found == ["a character in two chunks", "at once"]
    found = failed("11-7", printed(CHAPTER, "recover"))
    assert found == ["a sum of one", "the model's distribution stays", "both ways together"]


def test_every_bug_left_in_the_penalty_is_named():
    old = "for token in history:"
    sign = (
        "logits[token] = logits[token] / penalty",
        "x = logits[token]\n        logits[token] = x / penalty if x > 0 else x * penalty",
    )
    copy = (old, f"logits = logits.clone()\n    {old}")
    both = (old, "for token in {t for t in history if t >= 0}:")
    twice = (old, "for token in [t for t in history if t >= 0]:")
    padding = (old, "for token in set(history):")
    assert failed("11-3", printed(CHAPTER, "penalised", sign, copy, both)) == []
    for repairs, wanted in (
        ((copy, both), "a negative logit falls"),
        ((sign, copy, twice), "a token that stands there twice"),
        ((sign, copy, padding), "padding"),
        ((sign, both), "the logits that came in"),
    ):
        assert failed("11-3", printed(CHAPTER, "penalised", *repairs))[0] == wanted


def test_the_penalty_is_the_samplers():
    torch.manual_seed(0)
    logits, history = torch.randn(30), [3, 3, 7, -1, 29]
    expected = Sampler(repetition_penalty=1.3).penalised(logits[None], torch.tensor([history]))[0]
    torch.testing.assert_close(answer_of("11-3")(logits, history, 1.3), expected)


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        (lambda p, least: torch.where(p >= least, p, 0.0), "what is kept"),
        (lambda p, least: torch.where(p >= least * p.max(), p, 0.0), "what is kept"),
        (
            lambda p, least: (
                torch.where(p > least * p.max(), p, 0.0)
                / torch.where(p > least * p.max(), p, 0.0).sum()
            ),
            "exactly at the limit",
        ),
        (lambda p, least: p.sort(descending=True).values, "what is kept"),
    ],
)
def test_min_p(wrong, wanted):
    verdict = check("11-4", wrong)
    assert not verdict.right
    assert f"“{wanted}” fails" in verdict.message


def collects(chunks):
    yield b"".join(chunks).decode("utf-8", errors="replace")


def forgets_the_end(chunks):
    held = b""
    for chunk in chunks:
        held += chunk
        try:
            text = held.decode()
        except UnicodeDecodeError:
            continue
        held = b""
        yield text


def sends_nothing_as_text(chunks):
    held = b""
    for chunk in chunks:
        held += chunk
        try:
            text, held = held.decode(), b""
        except UnicodeDecodeError:
            text = ""
        yield text
    yield held.decode(errors="replace")


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        (collects, "at once"),
        (forgets_the_end, "an end inside a character"),
        (sends_nothing_as_text, "no empty pieces"),
    ],
)
def test_senders(wrong, wanted):
    assert failed("11-5", wrong)[0] == wanted


def test_positions():
    columns = failed("11-6", lambda mask: torch.full((len(mask),), mask.shape[1]))
    assert columns == ["left padding"]
    assert "no padding" in failed("11-6", lambda mask: mask.sum(1) - 1)


def test_a_draw_from_all_of_the_target_is_refused():
    assert failed("11-7", lambda target, guess: target.clone())[0] == "the guess is ruled out"


@pytest.mark.parametrize(
    ("exercise", "wrong"), [("11-1", 1499), ("11-1", "625,250"), ("11-2", 3), ("11-2", 4)]
)
def test_usual_wrong_numbers_have_a_hint(exercise, wrong):
    verdict = check(exercise, wrong)
    assert not verdict.right
    assert "not yet" in verdict.message
