"""Exercises of chapter 06: known wrong answers and the planted bugs are refused by name."""

import pytest
import torch
import torch.nn.functional as F
from test_exercises import answer_of

from qwen2_book.exercises import check


@pytest.mark.parametrize("form", [28_416, "28,416", "28416 neurons", 28416.0, torch.tensor(28416)])
def test_the_width_in_every_form(form):
    assert check("06-1", form).right


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda x: torch.sigmoid(x), "the slope near zero"),
        (lambda x: torch.sigmoid(x) * (1 - torch.sigmoid(x)), "the slope near zero"),
        (
            lambda x: (
                torch.exp(x) / (1 + torch.exp(x)) * (1 + x - x * torch.exp(x) / (1 + torch.exp(x)))
            ),
            "far out",
        ),
        (
            lambda x: torch.where(
                x < -1, torch.zeros_like(x), torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))
            ),
            "the hollow on the negative side",
        ),
    ],
)
def test_wrong_slopes(wrong, named):
    verdict = check("06-2", wrong)
    assert not verdict.right
    assert f"“{named}” fails" in verdict.message


def weights(last):
    return lambda: (
        torch.tensor([[1.0, 0.0], [-1.0, 0.0]]),
        torch.tensor([[0.0, 1.0], [0.0, last]]),
        torch.tensor([[1.0, 1.0]]),
    )


def test_wrong_products():
    assert check("06-3", weights(-1.0)).right
    assert "“it multiplies” fails" in check("06-3", weights(1.0)).message
    assert "“it multiplies” fails" in check("06-3", weights(0.0)).message


def fused(x, gate_up, down, swapped=False, axis=-1):
    gate, up = (x @ gate_up.T).chunk(2, dim=axis)
    if swapped:
        gate, up = up, gate
    return (F.silu(gate) * up) @ down.T


def test_swapped_halves_are_refused():
    assert check("06-4", fused).right
    assert "“gate rows first” fails" in check("06-4", lambda *a: fused(*a, swapped=True)).message
    interleaved = check(
        "06-4", lambda x, w, d: (F.silu((x @ w.T)[..., ::2]) * (x @ w.T)[..., 1::2]) @ d.T
    )
    assert "“gate rows first” fails" in interleaved.message


def on_ranks(swapped, joined_first):
    def answer(x, gate, up, down, ranks):
        halves = (up, gate) if swapped else (gate, up)
        total = 0
        for rank in range(ranks):
            if joined_first:
                own = torch.cat(halves).chunk(ranks)[rank]
            else:
                own = torch.cat([half.chunk(ranks)[rank] for half in halves])
            g, u = (x @ own.T).chunk(2, dim=-1)
            total = total + (F.silu(g) * u) @ down.chunk(ranks, dim=1)[rank].T
        return total

    return answer


@pytest.mark.parametrize(
    ("swapped", "joined_first", "named"),
    [(True, True, "one rank"), (True, False, "one rank"), (False, True, "two ranks")],
)
def test_each_planted_bug_is_named(swapped, joined_first, named):
    verdict = check("06-5", on_ranks(swapped, joined_first))
    assert not verdict.right
    assert f"“{named}” fails" in verdict.message
    assert check("06-5", on_ranks(False, False)).right


def test_separation_without_ties_is_refused():
    def strict(values, labels):
        return float((values[labels][:, None] > values[~labels][None]).float().mean())

    assert "“ties count half” fails" in check("06-6", strict).message
    reversed_ = check("06-6", lambda v, m: 1 - answer_of("06-6")(v, m))
    assert "“counts pairs” fails" in reversed_.message
