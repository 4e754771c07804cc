"""Online preference training: drawn answers, the chosen pair, and the merging optimiser."""

import math

import pytest
import torch
from layouts import DENSE, replace

from qwen2_book import Qwen2
from qwen2_book.errors import TrainingError
from qwen2_book.training.online import OnlineMerging, best_and_worst, draw

STOP = 7


def model_of(seed=0):
    torch.manual_seed(seed)
    return Qwen2(replace(DENSE, num_hidden_layers=2, initializer_range=0.1, eos_token_id=STOP))


def test_answers_are_drawn_from_the_policy():
    """Far more draws than tokens: the shares are the model's own probabilities."""
    model, prompts = model_of(), [[3, 5, 9], [4, 4]]
    groups = draw(model, prompts, 4000, 1, seed=1)
    assert [len(group) for group in groups] == [4000, 4000]
    for prompt, group in zip(prompts, groups, strict=True):
        assert all(ids[:-1] == prompt and len(ids) == len(prompt) + 1 for ids, _ in group)
        assert all(learned == [False] * len(prompt) + [True] for _, learned in group)
        with torch.no_grad():
            expected = model(torch.tensor([prompt]))[0, -1].softmax(-1)
        counts = (
            torch.bincount(
                torch.tensor([ids[-1] for ids, _ in group]), minlength=model.config.vocab_size
            )
            / 4000
        )
        assert float((counts - expected).abs().max()) < 0.05
        assert float(expected.max()) < 0.9  # there was something to draw


def test_an_answer_ends_with_its_stop_token_or_when_it_is_long_enough():
    model = model_of()
    ended = 0
    for ids, learned in draw(model, [[3, 5]], 300, 12, seed=2)[0]:
        answer = ids[2:]
        assert learned == [False, False] + [True] * len(answer)
        assert STOP not in answer[:-1]
        assert answer[-1] == STOP or len(answer) == 12
        ended += answer[-1] == STOP
    assert ended


def test_the_same_seed_draws_the_same():
    model = model_of()
    first, same, other = (draw(model, [[3, 5]], 8, 6, seed=seed) for seed in (3, 3, 4))
    assert first == same != other


def test_the_best_and_the_worst_become_the_pair():
    answers = [([n], [True]) for n in range(4)]
    assert best_and_worst(answers, [0.5, 2.0, -1.0, 0.0]) == (answers[1], answers[2])
    assert best_and_worst(answers, [1.0, 1.0, 1.0, 1.0]) is None
    with pytest.raises(TrainingError, match="4 answers and 2 rewards"):
        best_and_worst(answers, [1.0, 0.0])


def step_of(model, optimizer):
    optimizer.zero_grad()
    ids = torch.arange(5, 25)[None]
    torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    optimizer.step()


def test_a_merged_step_is_adams_step_and_a_part_of_tau():
    """With keep 1 nothing is dropped: the step is (1 - alpha) d + alpha tau, d from AdamW."""
    base, alpha = model_of(1), 0.1
    merged, plain = model_of(0), model_of(0)
    start = [p.detach().clone() for p in plain.parameters()]
    tau = [(p - q).detach() for p, q in zip(plain.parameters(), base.parameters(), strict=True)]
    step_of(merged, OnlineMerging(merged, base, 1e-3, keep=1.0, alpha=alpha))
    adam = torch.optim.AdamW(plain.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    step_of(plain, adam)
    for found, after, before, part in zip(
        merged.parameters(), plain.parameters(), start, tau, strict=True
    ):
        expected = before + (1 - alpha) * (after - before) + alpha * part.clamp(-1, 1)
        torch.testing.assert_close(found, expected)


def test_without_alpha_and_with_all_kept_it_is_adamw():
    merged, plain = model_of(0), model_of(0)
    optimizer = OnlineMerging(merged, model_of(1), 1e-3, keep=1.0, alpha=0.0)
    adam = torch.optim.AdamW(plain.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(3):
        step_of(merged, optimizer)
        step_of(plain, adam)
    for found, expected in zip(merged.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_dropped_numbers_are_made_up_for():
    """A share of tau is gone for good, the rest is divided by what is kept; so is each step."""
    torch.manual_seed(3)
    model, base = model_of(0), model_of(1)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = OnlineMerging(model, base, 1e-3, keep=0.25, alpha=0.0)
    for tau, p, q in zip(optimizer.tau, model.parameters(), base.parameters(), strict=True):
        kept = tau != 0
        torch.testing.assert_close(tau[kept], (4 * (p - q))[kept].clamp(-1, 1))
    share = sum(int((tau != 0).sum()) for tau in optimizer.tau) / sum(p.numel() for p in before)
    assert math.isclose(share, 0.25, abs_tol=0.02)
    step_of(model, optimizer)
    moved = [p - q for p, q in zip(model.parameters(), before, strict=True)]
    changed = sum(int((step != 0).sum()) for step in moved) / sum(p.numel() for p in before)
    assert 0.1 < changed < 0.27  # rows of the embedding that were not read do not move at all


@pytest.mark.parametrize(("keep", "alpha"), [(0.0, 0.1), (1.5, 0.1), (0.5, -0.1), (0.5, 1.0)])
def test_bad_shares_are_refused(keep, alpha):
    with pytest.raises(TrainingError, match="expected a share"):
        OnlineMerging(model_of(), model_of(), keep=keep, alpha=alpha)
