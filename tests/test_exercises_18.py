"""Chapter 18's exercises: planted bugs and usual wrong answers, each named by what fails."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from planted import failed, printed

from qwen2_book.exercises import check

MASK = "mask = places >= starts[:, None] + 1"
FIRST = ("starts[:, None] + 1", "starts[:, None]")
PADDING = ("mask = places >=", "mask = (places < ends[:, None]) & (places >=")
NAMES = {FIRST: "the first answer token counts", PADDING: "padding does not count"}


def repaired(*repairs):
    """The printed function, with the closing bracket that the second repair needs."""
    text = [*repairs]
    if PADDING in text:
        closing = "starts[:, None]" if FIRST in text else "starts[:, None] + 1"
        text.append((f">= {closing}\n", f">= {closing})\n"))
    return printed("18_dpo", "answer_log_probs", *text)


@pytest.mark.parametrize("count", range(2))
def test_each_planted_bug_fails_its_property(count):
    for left in itertools.combinations(NAMES, 2 - count):
        repairs = [repair for repair in NAMES if repair not in left]
        found = failed("18-3", repaired(*repairs))
        assert [name for name in found if name in NAMES.values()] == [NAMES[bug] for bug in left]
        assert "a sum, token by token" in found and "the prompt does not count" not in found


def test_both_repairs_together_are_right():
    assert check("18-3", repaired(*NAMES)).right


def test_other_wrong_sums():
    def mean(logits, ids, starts, ends):
        return right(logits, ids, starts, ends) / (ends - starts)

    def unshifted(logits, ids, starts, ends):
        found = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        places = torch.arange(ids.shape[1])[None]
        return (found * ((places >= starts[:, None]) & (places < ends[:, None]))).sum(-1)

    def prompt_too(logits, ids, starts, ends):
        return right(logits, ids, torch.ones_like(starts), ends)

    right = repaired(*NAMES)
    assert failed("18-3", mean)[0] == "the first answer token counts"  # divided by the length
    assert "the first answer token counts" in failed("18-3", unshifted)
    assert "the prompt does not count" in failed("18-3", prompt_too)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (math.log1p(math.exp(0.12)), "policy alone"),
        (math.log1p(math.exp(-1.8)), "Multiply it by beta"),
        (math.log1p(math.exp(0.18)), "-1.8"),
        (0.18, "beta times the margin"),
        (1 / (1 + math.exp(-0.18)), "probability of the right order"),
        (math.log(2), "Not yet"),
    ],
)
def test_wrong_losses_meet_their_hint(wrong, hint):
    verdict = check("18-1", wrong)
    assert not verdict.right and hint in verdict.message
    assert check("18-1", "0.607 nats").right and check("18-1", torch.tensor(0.6072)).right


def test_wrong_policies():
    def naive(reference, reward, beta):
        weights = reference.exp() * (reward / beta).exp()
        return (weights / weights.sum()).log()

    def forgot(reference, reward, beta):
        return (reward / beta).log_softmax(-1)

    def times(reference, reward, beta):
        return (reference + reward * beta).log_softmax(-1)

    assert failed("18-2", naive) == ["rewards in the thousands"]
    assert "the reference, weighed by the reward" in failed("18-2", forgot)
    assert "the reference, weighed by the reward" in failed("18-2", times)
    assert "probabilities that sum to one" in failed("18-2", lambda ref, r, b: ref + r / b)
    assert "the reference, weighed by the reward" in failed(
        "18-2", lambda ref, r, b: (ref + r / b).softmax(-1)
    )


def test_wrong_pushes():
    def exponentials(h, beta, epsilon):
        return beta * (1 / (1 + torch.exp(beta * h)) - epsilon)

    def other_sign(h, beta, epsilon):
        return -beta * (torch.sigmoid(-beta * h) - epsilon)

    def no_beta(h, beta, epsilon):
        return torch.sigmoid(-beta * h) - epsilon

    def unsmoothed(h, beta, epsilon):
        return beta * torch.sigmoid(-beta * h)

    def overflowing(h, beta, epsilon):
        grown = torch.exp(-beta * h)
        return beta * (grown / (1 + grown) - epsilon)

    assert failed("18-4", exponentials) == []
    assert failed("18-4", overflowing) == ["margins of a thousand nats"]
    assert "without smoothing" in failed("18-4", other_sign)
    assert "without smoothing" in failed("18-4", no_beta)
    assert "without smoothing" not in failed("18-4", unsmoothed)
    assert "with smoothing" in failed("18-4", unsmoothed)


def test_wrong_terms():
    def plain(policy, reference):
        return policy - reference

    def turned(policy, reference):
        return torch.expm1(policy - reference) - (policy - reference)

    def absolute(policy, reference):
        return (policy - reference).abs()

    assert failed("18-5", plain) == ["no term below zero"]
    assert failed("18-5", turned) == failed("18-5", absolute) == ["the mean is the KL"]


def test_wrong_simpos():
    def simpo(chosen, rejected, n, m, beta, gamma):
        return -F.logsigmoid(beta * (chosen / n - rejected / m) - gamma)

    def sums(chosen, rejected, n, m, beta, gamma):
        return -F.logsigmoid(beta * (chosen - rejected) - gamma)

    def one_length(chosen, rejected, n, m, beta, gamma):
        return simpo(chosen, rejected, n, n, beta, gamma)

    def inside(chosen, rejected, n, m, beta, gamma):
        return -F.logsigmoid(beta * (chosen / n - rejected / m - gamma))

    assert failed("18-6", simpo) == []
    assert "equal lengths, no margin" in failed("18-6", sums)
    assert failed("18-6", one_length) == ["each by its own length", "won by gamma"]
    assert failed("18-6", inside) == ["won by gamma"]
    assert "equal lengths, no margin" in failed("18-6", lambda *case: simpo(*case).mean())
