"""Exercises of chapter 16: known wrong answers and the planted bugs are refused by name."""

import math

import pytest
import torch
from planted import failed, printed
from test_exercises import answer_of

from qwen2_book import Qwen2, Qwen2Config
from qwen2_book.costs import matmul_flops, parameters
from qwen2_book.exercises import EXERCISES, check

CHAPTER = "16_pretraining"


def test_each_hinted_loss_is_one_that_people_reach():
    rows, hidden, std = 151_936, 896, 0.02
    ln, sigma = math.log(rows), hidden**0.5 * std
    right = ln + sigma**2 / 2
    reached = [ln, ln + sigma, ln + sigma**2, right / math.log(2)]
    assert check("16-1", right).right
    for found, hint in zip(reached, EXERCISES["16-1"].hints, strict=True):
        assert abs(found - hint) < 2e-4
        verdict = check("16-1", found)
        assert not verdict.right


def test_the_first_loss_is_that_of_a_random_model():
    """The equation behind 16-1, measured with as many rows as fit."""
    torch.manual_seed(0)
    small = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(hidden_size=256, intermediate_size=512, vocab_size=4096, **small)
    model, ids = Qwen2(config), torch.randint(4096, (4, 64))
    logits = model(ids).detach().flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids.flatten()[1:])
    assert abs(float(loss) - math.log(4096) - 256 * config.initializer_range**2 / 2) < 0.02


def test_the_hinted_days_are_those_of_known_mistakes():
    config = Qwen2Config.named("Qwen2-7B")
    counts, daily = parameters(config), 1000 * 4e14 * 86_400
    right = 3 * matmul_flops(config) * 7e12 / daily
    assert check("16-3", round(right, 1)).right
    mistakes = (
        right / 3,
        6 * counts["total"] * 7e12 / daily,
        6 * counts["non_embedding"] * 7e12 / daily,
        right * 24,
        right * 1000,
    )
    for found, hint in zip(mistakes, EXERCISES["16-3"].hints, strict=True):
        assert abs(found / hint - 1) < 0.002
        assert not check("16-3", found).right


def schedule(first=1, last=1, share_of="peak"):
    def answer(step, steps, warm_up, peak, share):
        if step < warm_up:
            return peak * (step + first) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up - last)
        low = share * peak if share_of == "peak" else share
        return low + (peak - low) * (1 + math.cos(math.pi * done)) / 2

    return answer


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (schedule(first=0), "a line up to the peak"),
        (schedule(last=0), "ends at its share of the peak"),
        (schedule(share_of="one"), "ends at its share of the peak"),
        (lambda k, n, w, p, s: p * min((k + 1) / max(w, 1), 1), "ends at its share of the peak"),
    ],
)
def test_wrong_schedules(wrong, named):
    assert check("16-2", schedule()).right
    verdict = check("16-2", wrong)
    assert not verdict.right
    assert f"“{named}” fails" in verdict.message


def test_a_straight_way_down_is_no_cosine():
    def straight(step, steps, warm_up, peak, share):
        if step < warm_up:
            return peak * (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up - 1)
        return peak * (1 - (1 - share) * done)

    assert "“half a cosine between” fails" in check("16-2", straight).message


def test_the_printed_accumulation_has_its_bug_and_one_change_repairs_it():
    assert failed("16-4", printed(CHAPTER, "gradient")) == [
        "batches of different sizes",
        "a batch with nothing to learn",
    ]
    repaired = printed(
        CHAPTER,
        "gradient",
        ("losses(weight, batch).mean() / len(batches)", "losses(weight, batch).sum() / tokens"),
        ("total = 0", "total, tokens = 0, sum(map(len, batches))"),
    )
    assert check("16-4", repaired).right


def test_the_printed_targets_cross_the_border():
    assert failed("16-5", printed(CHAPTER, "targets")) == [
        "two documents",
        "documents of one token",
    ]
    assert check("16-5", answer_of("16-5")).right
    assert (
        "“one document” fails"
        in check("16-5", lambda d: torch.tensor([t for each in d for t in each])).message
    )


def test_the_jump_is_that_of_a_real_optimizer():
    """Gradients +1, -1, ... for long; then the same optimiser with its state lost."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    settings = {"lr": 1.0, "betas": (0.9, 0.95), "eps": 0.0, "weight_decay": 0.0}
    steps = []
    for forget in (False, True):
        optimizer = torch.optim.AdamW([weight], **settings)
        for number in range(2000 if not forget else 1):
            before = weight.item()
            weight.grad = torch.tensor([(-1.0) ** number], dtype=torch.float64)
            optimizer.step()
        steps.append(abs(weight.item() - before))
    assert check("16-6", steps[1] / steps[0]).right
    for wrong in (1, 10, steps[0], 39):
        assert not check("16-6", wrong).right
