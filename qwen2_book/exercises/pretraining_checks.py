"""What right answers to the exercises of chapter 16 do: each check raises AssertionError if not."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.costs import matmul_flops
from qwen2_book.training.data import IGNORE
from qwen2_book.training.loop import Settings

DAY = 24 * 60 * 60  # seconds


def first_loss() -> float:
    """Of Qwen2-0.5B before its first step: ln V, and half the variance of a random logit."""
    config = Qwen2Config.named("Qwen2-0.5B")
    return math.log(config.vocab_size) + config.hidden_size * 0.02**2 / 2


def days() -> float:
    """6 N D for Qwen2-7B and 7T tokens, on 1,000 processors of 4e14 operations a second."""
    operations = 3 * matmul_flops(Qwen2Config.named("Qwen2-7B")) * 7e12
    return operations / (1000 * 4e14 * DAY)


def jump() -> float:
    """Adam's first step after its moments were lost, over the step before: (1 + β) / (1 - β)."""
    return (1 + 0.9) / (1 - 0.9)


# 16-2: rate(step, steps, warm_up, peak, share)

SCHEDULES = ((100, 10, 1e-3, 0.1), (37, 1, 0.5, 0.0), (50, 0, 1.0, 0.25))


def _rates(answer: Callable, steps: int, warm_up: int, peak: float, share: float) -> list[float]:
    return [float(answer(step, steps, warm_up, peak, share)) for step in range(steps)]


def _wanted(steps: int, warm_up: int, peak: float, share: float) -> list[float]:
    settings = Settings(steps=steps, peak_rate=peak, warm_up=warm_up, final_share=share)
    return [settings.rate(step) for step in range(steps)]


def _near(found: float, expected: float, peak: float) -> bool:
    return abs(found - expected) <= 1e-9 * peak


def climbs(answer: Callable) -> None:
    """A straight line whose first step is not lost and whose last reaches the peak."""
    for steps, warm_up, peak, share in SCHEDULES[:2]:
        found = _rates(answer, steps, warm_up, peak, share)
        assert all(_near(found[k], peak * (k + 1) / warm_up, peak) for k in range(warm_up))


def ends_at_its_share(answer: Callable) -> None:
    """The last step has the final share of the peak, and none is below it."""
    for steps, warm_up, peak, share in SCHEDULES:
        found = _rates(answer, steps, warm_up, peak, share)
        assert _near(found[-1], peak * share, peak)
        assert min(found[warm_up:]) >= peak * share - 1e-9 * peak


def follows_the_cosine(answer: Callable) -> None:
    """Every step is the package's."""
    for schedule in SCHEDULES:
        found, expected = _rates(answer, *schedule), _wanted(*schedule)
        assert all(_near(a, b, schedule[2]) for a, b in zip(found, expected, strict=True))


# 16-4: gradient(batches, losses, weight)


def _losses(weight: Tensor, batch: Tensor) -> Tensor:
    """The loss of each token of a batch, for a model of three numbers."""
    return (batch @ weight - 1) ** 2


def _batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(16)
    return [torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in sizes]


def _gradients(answer: Callable, *sizes: int) -> None:
    weight = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    batches = _batches(*sizes)
    (expected,) = torch.autograd.grad(_losses(weight, torch.cat(batches)).mean(), weight)
    found = answer(batches, _losses, weight)
    assert isinstance(found, Tensor) and found.shape == weight.shape
    assert torch.allclose(found, expected, atol=1e-10)


def equal_batches(answer: Callable) -> None:
    """Batches of one size."""
    _gradients(answer, 5, 5, 5)


def unequal_batches(answer: Callable) -> None:
    """Batches with few and with many tokens."""
    _gradients(answer, 11, 101)
    _gradients(answer, 1, 40, 7)


def empty_batch(answer: Callable) -> None:
    """A batch in which nothing is learned."""
    _gradients(answer, 6, 0, 3)


# 16-5: targets(documents)


def _target(answer: Callable, documents: list[list[int]]) -> None:
    expected = [t for each in documents for t in (*each[1:], IGNORE)]
    found = answer(documents)
    assert isinstance(found, Tensor) and found.shape == (len(expected),)
    assert found.tolist() == expected


def one_document(answer: Callable) -> None:
    """The token after each token; nothing follows the last."""
    _target(answer, [[3, 1, 4, 1, 5]])


def two_documents(answer: Callable) -> None:
    """The end of one document does not predict the beginning of another."""
    _target(answer, [[7, 8, 0], [7, 9, 9, 0]])


def short_documents(answer: Callable) -> None:
    """A document of one token has nothing to learn."""
    _target(answer, [[5], [6, 7], [8]])
