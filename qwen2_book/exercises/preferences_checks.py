"""What right answers to the exercises of chapter 18 do: each check raises AssertionError if not."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_of_the_pair() -> float:
    """-log sigmoid(0.1 h), with h = (-31.2 + 28.0) - (-30.0 + 25.0) nats."""
    margin = (-31.2 + 28.0) - (-30.0 + 25.0)
    return math.log1p(math.exp(-0.1 * margin))


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _same(found: object, expected: Tensor) -> None:
    assert isinstance(found, Tensor) and found.shape == expected.shape
    assert torch.allclose(found.double(), expected.double(), atol=1e-6)


# 18-2: best_policy(reference, reward, beta), log-probabilities


def _policies(answer: Callable, scale: float, betas: tuple[float, ...]) -> None:
    for beta in betas:
        reference, reward = _random(6).log_softmax(-1), _random(6, seed=1) * scale
        weights = [
            float(p.exp()) * math.exp(float(r) / beta)
            for p, r in zip(reference, reward, strict=True)
        ]
        expected = torch.tensor([math.log(w / sum(weights)) for w in weights])
        _same(answer(reference, reward, beta), expected)


def weighs_the_reference(answer: Callable) -> None:
    """Small rewards, several betas."""
    _policies(answer, 1.0, (0.5, 1.0, 3.0))


def sums_to_one(answer: Callable) -> None:
    """The log-probabilities are those of a distribution."""
    reference = _random(8, seed=2).log_softmax(-1)
    assert abs(float(answer(reference, _random(8, seed=3), 0.7).exp().sum()) - 1) < 1e-6


def large_rewards(answer: Callable) -> None:
    """Rewards in the thousands overflow no exponential."""
    reference = _random(4, seed=4).log_softmax(-1)
    found = answer(reference, torch.tensor([1000.0, 3000.0, 2999.0, 0.0]).double(), 0.5)
    assert bool(found.isfinite().all())
    assert abs(float(found[1] - found[2]) - float(reference[1] - reference[2]) - 2) < 1e-6


# 18-3: answer_log_probs(logits, ids, starts, ends), with two planted bugs


def _rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    starts, ends = torch.tensor([2, 4, 1]), torch.tensor([7, 5, 4])
    ids = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(5))
    return _random(3, 7, 11, seed=6), ids, starts, ends


def _expected(logits: Tensor, ids: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Token by token: the logits before a token say how likely it was."""
    found = torch.zeros(len(ids), dtype=logits.dtype)
    for row in range(len(ids)):
        for place in range(int(starts[row]), int(ends[row])):
            found[row] += logits[row, place - 1].log_softmax(-1)[ids[row, place]]
    return found


def first_token(answer: Callable) -> None:
    """A full row's sum changes with the logits before the answer's first token, and only once."""
    logits, ids, starts, ends = (part[:1] for part in _rows())
    other = logits.clone()
    other[0, starts[0] - 1, ids[0, starts[0]]] += 3
    moved = answer(other, ids, starts, ends) - answer(logits, ids, starts, ends)
    _same(moved, _expected(other, ids, starts, ends) - _expected(logits, ids, starts, ends))


def no_padding(answer: Callable) -> None:
    """What stands after the answer changes nothing."""
    logits, ids, starts, ends = _rows()
    before = answer(logits, ids, starts, ends)
    other, tokens = logits.clone(), ids.clone()
    for row in range(3):
        other[row, ends[row] :] += _random(7 - int(ends[row]), 11, seed=7)
        tokens[row, ends[row] :] = 0
    _same(answer(other, tokens, starts, ends), before)


def no_prompt(answer: Callable) -> None:
    """What the logits say about the prompt changes nothing."""
    logits, ids, starts, ends = _rows()
    other = logits.clone()
    for row in range(3):
        other[row, : starts[row] - 1] += 2 * _random(int(starts[row]) - 1, 11, seed=8)
    _same(answer(other, ids, starts, ends), answer(logits, ids, starts, ends))


def whole_sum(answer: Callable) -> None:
    """All rows together, token by token."""
    rows = _rows()
    _same(answer(*rows), _expected(*rows))


# 18-4: push(h, beta, epsilon)


def _push(answer: Callable, h: Tensor, beta: float, epsilon: float) -> None:
    h = h.double().requires_grad_()
    wrong = epsilon * F.logsigmoid(-beta * h)
    loss = -(1 - epsilon) * F.logsigmoid(beta * h) - wrong
    (slope,) = torch.autograd.grad(loss.sum(), h)
    _same(answer(h.detach(), beta, epsilon), -slope)


def plain_push(answer: Callable) -> None:
    """No smoothing: beta times the probability of the wrong order."""
    for beta in (0.1, 1.0):
        _push(answer, torch.linspace(-30, 30, 13), beta, 0.0)


def smoothed_push(answer: Callable) -> None:
    """With smoothing."""
    for beta in (0.1, 1.0):
        _push(answer, torch.linspace(-30, 30, 13), beta, 0.2)


def far_push(answer: Callable) -> None:
    """Margins of a thousand nats give finite numbers, in float32 too."""
    found = answer(torch.tensor([-1000.0, 1000.0]), 1.0, 0.1)
    assert torch.allclose(found, torch.tensor([0.9, -0.1]), atol=1e-6)


# 18-5: terms(policy, reference)


def never_negative(answer: Callable) -> None:
    """No single term is below zero."""
    policy, reference = _random(40, seed=9).log_softmax(-1), _random(40, seed=10).log_softmax(-1)
    assert float(answer(policy, reference).min()) >= 0
    assert float(answer(policy, policy).abs().max()) < 1e-9


def same_mean(answer: Callable) -> None:
    """Weighed by the policy, the terms give the exact KL."""
    for seed in (11, 12):
        policy, reference = (_random(9, seed=seed + 5 * k).log_softmax(-1) for k in range(2))
        exact = (policy.exp() * (policy - reference)).sum()
        found = (policy.exp() * answer(policy, reference)).sum()
        assert abs(float(found - exact)) < 1e-6


# 18-6: simpo(chosen, rejected, chosen_tokens, rejected_tokens, beta, gamma)


def _simpo(answer: Callable, beta: float, gamma: float, same_length: bool) -> None:
    chosen, rejected = -_random(5, seed=13).abs() * 9, -_random(5, seed=14).abs() * 9
    lengths = torch.tensor([3, 9, 4, 7, 5]), torch.tensor([8, 2, 4, 6, 5])
    chosen_tokens, rejected_tokens = (lengths[0], lengths[0]) if same_length else lengths
    expected = []
    for c, d, n, m in zip(chosen, rejected, chosen_tokens, rejected_tokens, strict=True):
        gap = beta * float(c) / int(n) - beta * float(d) / int(m) - gamma
        expected.append(math.log1p(math.exp(-gap)))
    found = answer(chosen, rejected, chosen_tokens, rejected_tokens, beta, gamma)
    _same(found, torch.tensor(expected))


def no_margin(answer: Callable) -> None:
    """Equal lengths, gamma 0."""
    _simpo(answer, 2.0, 0.0, same_length=True)


def own_lengths(answer: Callable) -> None:
    """Each answer is divided by its own length."""
    _simpo(answer, 2.0, 0.0, same_length=False)


def won_by_gamma(answer: Callable) -> None:
    """The margin is subtracted after beta."""
    _simpo(answer, 2.0, 1.0, same_length=False)
