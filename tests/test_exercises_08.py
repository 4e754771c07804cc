"""Exercises of chapter 08: known wrong answers and the planted bugs are refused by name."""

import math

import pytest
import torch
import torch.nn.functional as F
from planted import failed, printed
from test_exercises import answer_of

from qwen2_book.exercises import check

CHAPTER = "08_mixture_of_experts"


@pytest.mark.parametrize("form", [224, "224 experts", 224.0, torch.tensor(224)])
def test_the_experts_of_a_token_in_every_form(form):
    assert check("08-1", form).right


@pytest.mark.parametrize("wrong", [8, 64, 1792, 448])
def test_each_known_wrong_count_has_its_hint(wrong):
    verdict = check("08-1", wrong)
    assert not verdict.right
    assert "How many layers have experts" not in verdict.message


def test_the_gpus_of_a_token():
    assert check("08-4", 5.43).right
    assert "different" in check("08-4", 8 * (1 - (7 / 8) ** 8)).message
    assert "same GPU" in check("08-4", 8).message
    torch.manual_seed(0)
    drawn = torch.rand(20_000, 64).topk(8).indices // 8
    mean = F.one_hot(drawn, 8).amax(1).sum(1).float().mean()
    assert check("08-4", round(float(mean), 2)).right


def dropping(rounding=math.ceil, per_token=True, order="tokens"):
    def answer(chosen, experts, factor):
        pairs = chosen.numel() if per_token else len(chosen)
        flat = chosen.flatten() if order == "tokens" else chosen.T.flatten()
        wanted = F.one_hot(flat, experts)
        before = (wanted.cumsum(0) - wanted).gather(1, flat[:, None])[:, 0]
        full = before >= rounding(factor * pairs / experts)
        return full.view_as(chosen) if order == "tokens" else full.view_as(chosen.T).T

    return answer


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dropping(per_token=False), "nothing dropped in balance"),
        (dropping(rounding=int), "capacity rounded up"),
        (dropping(order="choices"), "capacity rounded up"),
        (lambda c, e, f: torch.zeros_like(c, dtype=torch.bool), "who comes first is served"),
    ],
)
def test_wrong_capacities(wrong, named):
    assert check("08-2", dropping()).right
    verdict = check("08-2", wrong)
    assert not verdict.right
    assert f"“{named}” fails" in verdict.message


def test_wrong_parts():
    right = answer_of("08-3")
    assert "“each part by itself” fails" in check("08-3", lambda m, x: right(m, x)[::-1]).message
    assert "“each part by itself” fails" in check("08-3", lambda m, x: (m(x), 0 * x)).message

    def own_router(layer, x):
        tokens = x.flatten(0, 1)
        routed = layer.by_expert(tokens, *layer.gate(tokens).softmax(-1).topk(layer.top_k))
        return routed.view_as(x), right(layer, x)[1]

    assert "“a layer that renormalises” fails" in check("08-3", own_router).message


def test_the_printed_router_has_its_bug_and_one_change_repairs_it():
    assert failed("08-5", printed(CHAPTER, "route")) == [
        "weights are probabilities among all experts",
        "float32 inside, the logits' dtype outside",
    ]
    repaired = printed(
        CHAPTER,
        "route",
        ("logits.float().topk(k)", "logits.float().softmax(-1).topk(k)"),
        ("scores.softmax(-1)", "scores"),
    )
    assert check("08-5", repaired).right
    half = printed(
        CHAPTER, "route", ("logits.float()", "logits.softmax(-1)"), ("scores.softmax(-1)", "scores")
    )
    assert failed("08-5", half) == ["float32 inside, the logits' dtype outside"]


def test_the_printed_loss_has_its_bug_and_is_right_in_balance():
    assert failed("08-6", printed(CHAPTER, "balance")) == [
        "E in collapse",
        "equal to the package's",
    ]
    repaired = printed(CHAPTER, "balance", ("router_logits.softmax(-1).mean", "router_logits.mean"))
    assert check("08-6", repaired).right
